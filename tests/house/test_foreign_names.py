"""``kernels`` is also a distribution of Hugging Face, ``proto`` the package of proto-plus: how theirs and ours get along."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from source_tree import ROOT

FORWARD = """
import torch
from transformers import LlamaConfig, LlamaModel
heads = dict(num_attention_heads=2, num_key_value_heads=2)
small = dict(hidden_size=16, num_hidden_layers=1, intermediate_size=16, vocab_size=20, **heads)
assert LlamaModel(LlamaConfig(**small))(inputs_embeds=torch.zeros(1, 3, 16)).last_hidden_state.shape == (1, 3, 16)
import kernels
assert hasattr(kernels, "SessionGraph"), kernels
print("ran")
"""
KEEP_OFF = "from llmgr_core.import_names import keep_transformers_off_kernels\nkeep_transformers_off_kernels()\n"


def run(code: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter that searches ``paths``, in this order, before everything installed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONSAFEPATH": "1"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)


@pytest.fixture
def their_metadata(tmp_path: Path) -> Path:
    """Metadata of their distribution, in a version that transformers wants, without its package: ours is what gets imported."""
    from transformers.utils import import_utils

    version = getattr(import_utils, "KERNELS_MIN_VERSION", "0.18.2")
    directory = tmp_path / f"kernels-{version}.dist-info"
    directory.mkdir()
    (directory / "METADATA").write_text(f"Metadata-Version: 2.1\nName: kernels\nVersion: {version}\n")
    return tmp_path


@pytest.fixture
def their_package(tmp_path: Path) -> Path:
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__init__.py").write_text("def get_kernel(repository): ...\n")
    return tmp_path


def test_transformers_runs_with_our_kernels_on_the_path() -> None:
    done = run(FORWARD, ROOT)
    assert "ran" in done.stdout, done.stderr


def test_transformers_runs_even_where_it_takes_our_kernels_for_theirs(their_metadata: Path) -> None:
    done = run(KEEP_OFF + FORWARD, ROOT, their_metadata)
    assert "ran" in done.stdout, done.stderr


@pytest.mark.slow
def test_without_that_precaution_transformers_would_fail_there(their_metadata: Path) -> None:
    """If this no longer fails, transformers asks in another way, and the precaution may be dropped."""
    done = run(FORWARD, ROOT, their_metadata)
    assert "cannot import name" in done.stderr


@pytest.mark.weights
def test_the_language_model_loader_takes_the_precaution(their_metadata: Path, minilm: Path) -> None:
    code = (
        "import torch\nfrom pathlib import Path\nfrom llmgr_core.engine.language_model import load_language_model\n"
        f"load_language_model(Path({str(minilm)!r}), 'fp32', torch.device('cpu'))\nprint('ran')"
    )
    done = run(code, ROOT, their_metadata)
    assert "ran" in done.stdout, done.stderr


def test_their_package_in_our_place_is_named_at_once(their_package: Path) -> None:
    done = run("import llmgr_core", their_package, ROOT)
    assert done.returncode != 0
    assert "pip uninstall kernels" in done.stderr
    assert str(their_package) in done.stderr


def test_our_proto_folder_is_no_package(tmp_path: Path) -> None:
    assert not list((ROOT / "proto").rglob("*.py"))
    done = run("import proto; print(getattr(proto, '__file__', None))", ROOT)
    assert done.stdout.strip() == "None"  # the folder at most, never a module of ours


def test_proto_plus_is_found_behind_our_folder(tmp_path: Path) -> None:
    (tmp_path / "proto").mkdir()
    (tmp_path / "proto" / "__init__.py").write_text("Message = 'theirs'\n")
    done = run("import proto, llmgr_core; print(proto.Message)", ROOT, tmp_path)
    assert done.stdout.strip() == "theirs", done.stderr


def test_generated_code_claims_no_top_level_name() -> None:
    """It is imported as services.contract; the proto package llmgr.v1 needs no Python package of that name."""
    assert not (ROOT / "llmgr").exists()
    for path in (ROOT / "services" / "contract").rglob("*.py"):
        text = path.read_text()
        assert "\nfrom llmgr" not in text, path
        assert "\nimport llmgr." not in text, path
