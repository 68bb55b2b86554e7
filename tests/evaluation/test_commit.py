"""What a result says of the sources that made it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import llmgr_core
from llmgr_core.evaluation.protocol import commit


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a source file and a result, taken for the one this runs from."""
    for name in ("llmgr_core/__init__.py", "benchmarks/results/load.json"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text("{}\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "-c", "user.name=n", "-c", "user.email=e@example.org", "commit", "-qm", "first")
    monkeypatch.setattr(llmgr_core, "__file__", str(tmp_path / "llmgr_core" / "__init__.py"))
    return tmp_path


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True).stdout.strip()


def test_a_clean_checkout_is_named_by_its_commit(checkout: Path) -> None:
    assert commit() == git(checkout, "rev-parse", "HEAD")


def test_sources_that_differ_are_said_to(checkout: Path) -> None:
    (checkout / "llmgr_core" / "__init__.py").write_text("changed = 1\n")
    assert commit() == git(checkout, "rev-parse", "HEAD") + "+changes"


def test_a_result_written_by_an_earlier_command_is_no_difference(checkout: Path) -> None:
    (checkout / "benchmarks" / "results" / "load.json").write_text('{"newer": 1}\n')
    assert commit() == git(checkout, "rev-parse", "HEAD")
