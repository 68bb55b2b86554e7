"""Names and sizes: rooms where the design puts them, no drawers for odds and ends, files a person reads in one go."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from source_tree import PACKAGES, PROGRAMS, ROOT, python_files

FORBIDDEN = re.compile(r"(?:^|_)(?:utils?|utilities|helpers?|common|misc|miscellaneous|stuff|shared|base_utils|tools)(?:_|$)")
MOST_LINES = 400
HAND_WRITTEN = [path for path in python_files(*PACKAGES, *PROGRAMS) if "contract" not in path.relative_to(ROOT).parts]


@pytest.mark.parametrize("name", ["proto", "kernels", "llmgr_core", "services", "trainer", "tests", "pyproject.toml"])
def test_the_top_level_is_that_of_the_design(name: str) -> None:
    assert (ROOT / name).exists()


def test_nothing_is_called_utils_helpers_common_or_misc() -> None:
    names = {path.relative_to(ROOT) for path in python_files(*PACKAGES, *PROGRAMS)}
    names |= {parent for path in names for parent in path.parents if parent != Path()}
    assert not [str(path) for path in names if FORBIDDEN.search(path.stem)]


@pytest.mark.parametrize("name", ["utils", "my_utils", "helper", "common", "misc_things", "test_helpers"])
def test_the_rule_for_names_finds_them(name: str) -> None:
    assert FORBIDDEN.search(name)


def test_no_file_is_longer_than_a_person_reads_in_one_go() -> None:
    lengths = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in HAND_WRITTEN}
    assert not {str(path): count for path, count in lengths.items() if count > MOST_LINES}


def test_every_module_says_what_it_is_for() -> None:
    trees = {path: ast.parse(path.read_text()) for path in HAND_WRITTEN}
    assert not [str(path.relative_to(ROOT)) for path, tree in trees.items() if tree.body and not ast.get_docstring(tree)]


def test_test_modules_have_names_of_their_own() -> None:
    """pytest imports test files by their base name, since the rooms of tests/ are no packages."""
    seen: dict[str, Path] = {}
    for path in python_files("tests"):
        if path.name != "conftest.py":
            assert path.name not in seen, f"{path} and {seen[path.name]}"
            seen[path.name] = path


def test_nothing_unpickles_and_nothing_runs_code_from_model_directories() -> None:
    wrong = []
    for path in python_files(*PACKAGES, "benchmarks"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            unpickles = {name.partition(".")[0] for name in modules} & {"pickle", "dill", "joblib", "cloudpickle", "shelve"}
            called = isinstance(node, ast.Call) and ast.unparse(node.func) in {"torch.load", "torch.jit.load", "eval", "exec"}
            allowed = isinstance(node, ast.keyword) and node.arg in {"allow_pickle", "trust_remote_code"}
            if unpickles or called or (allowed and ast.unparse(node.value) != "False"):
                wrong.append(f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}")
    assert not wrong
