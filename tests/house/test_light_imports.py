"""What a host without the training libraries imports, and how little the command line loads before it runs a step."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest
from source_tree import ROOT

HEAVY = {
    "transformers",
    "peft",
    "deepspeed",
    "pyarrow",
    "tokenizers",
    "gguf",
    "ftfy",
    "pandas",
    "matplotlib",
    "ranx",
    "numba",
    "optuna",
}
ENTRY_POINTS: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["llmgr.commands"]


def loaded_by(code: str) -> set[str]:
    """Top-level modules in a fresh interpreter after running ``code``."""
    program = f"import sys\n{code}\nprint(*{{name.partition('.')[0] for name in list(sys.modules)}}, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


def test_a_ranking_host_loads_no_language_model_library() -> None:
    code = "import services.ranking.server, llmgr_core.bundle, llmgr_core.ranker, llmgr_core.store"
    assert not loaded_by(code) & (HEAVY | {"scipy", "torch", "trainer"})


def test_a_client_loads_neither_torch_nor_the_store() -> None:
    assert not loaded_by("import services.client") & (HEAVY | {"torch", "lmdb"})


def test_the_command_line_loads_every_command_without_heavy_libraries() -> None:
    loads = "; ".join(f"import {value.partition(':')[0]}" for value in ENTRY_POINTS.values())
    assert not loaded_by(loads) & (HEAVY | {"grpc", "lmdb", "scipy", "torch"})


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_every_entry_point_is_a_command_of_that_name(name: str) -> None:
    import importlib

    import click

    module, _, attribute = ENTRY_POINTS[name].partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    assert command.name == name
    assert command.help, f"llmgr {name} has no help"


def test_the_commands_are_those_of_the_design() -> None:
    wanted = "prepare pretrain tune embed distil evaluate export serve rank insert data model bench".split()  # noqa: SIM905
    assert set(wanted) <= set(ENTRY_POINTS)
