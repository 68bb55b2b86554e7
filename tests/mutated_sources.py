"""A copy of the sources in which a text is exchanged for another, to see whether a test notices."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run_tests(tree: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in a copy; options and node ids as it takes them."""
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "--tb=short", "-p", "no:cacheprovider", *options]
    # No bytecode: its time stamps have whole seconds, and a file may change twice in one. The path goes to the processes that
    # tests start.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(tree)}
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)


def copy_sources(into: Path, patterns: Iterable[str]) -> None:
    """Copy what matches, relative to the repository."""
    for source in (path for pattern in patterns for path in ROOT.glob(pattern)):
        target = into / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)


@contextmanager
def exchanged(path: Path, old: str, new: str) -> Iterator[None]:
    """A Python file with ``new`` for ``old``, as it was again afterwards."""
    original = path.read_text(encoding="utf-8")
    mutated = original.replace(old, new)
    ast.parse(mutated)
    path.write_text(mutated, encoding="utf-8")
    yield
    path.write_text(original, encoding="utf-8")


def not_standing_once(changes: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """Of (file, text) those whose text does not stand exactly once in the file, with how often it does."""
    counts = {(file, old): (ROOT / file).read_text(encoding="utf-8").count(old) for file, old in changes}
    return {change: count for change, count in counts.items() if count != 1}
