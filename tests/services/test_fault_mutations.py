"""Every test of a fault was seen to fail without what protects from that fault: each removal, on a copy of the sources.

`make test` looks only whether the removals still fit the sources; `make test-all` tries each of them.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
from fault_mutations import MUTATIONS, table
from fault_removal import FaultMutation

ROOT = Path(__file__).parents[2]
COPIED = (
    "kernels",
    "llmgr_core",
    "services",
    "tests/services",
    "tests/store",
    "tests/encoders",
    "tests/engine",
    "tests/*.py",
    "pyproject.toml",
)
# A removal must make a result wrong; a program that cannot run proves nothing.
CANNOT_RUN = re.compile(r"^E\s+(?:\w+\.)*(?:SyntaxError|NameError|ImportError|ModuleNotFoundError)\b", re.MULTILINE)
# Without its protection a server may wait for ever.
SECONDS_EACH = 150


def run_tests(tree: Path, *nodes: str, seconds: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "--tb=short", "-p", "no:cacheprovider", "-m", "not slow"]
    # No bytecode: its time stamps have whole seconds, and a file may change twice in one. The path goes to the processes that
    # tests start.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(tree)}
    return subprocess.run(
        [*command, f"--timeout={seconds}", *nodes], cwd=tree, env=environment, capture_output=True, text=True, check=False
    )


def outcome(done: subprocess.CompletedProcess[str], node: str) -> set[str]:
    """What became of a test, or of its cases."""
    return set(re.findall(rf"^(PASSED|FAILED|ERROR) {re.escape(node)}(?:\[| |$)", done.stdout, re.MULTILINE))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A copy in which every test that is about to be named passes."""
    copy = tmp_path_factory.mktemp("mutations")
    for source in (path for name in COPIED for path in ROOT.glob(name)):
        target = copy / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    here = [item for item in request.session.items if item.path == Path(__file__) and hasattr(item, "callspec")]
    nodes = dict.fromkeys(item.callspec.params["mutation"].test for item in here)
    done = run_tests(copy, *nodes, seconds=600)
    assert done.returncode == 0, f"on the sources as they are:\n{done.stdout[-6000:]}{done.stderr[-2000:]}"
    for node in nodes:
        assert outcome(done, node) == {"PASSED"}, f"{node} did not run"
    return copy


@pytest.fixture
def changed(tree: Path, mutation: FaultMutation) -> Iterator[Path]:
    """The copy without one protection."""
    path = tree / mutation.file
    original = path.read_text(encoding="utf-8")
    mutated = original.replace(mutation.old, mutation.new)
    ast.parse(mutated)
    path.write_text(mutated, encoding="utf-8")
    yield tree
    path.write_text(original, encoding="utf-8")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mutation", [pytest.param(one, id=one.protection.replace(" ", "-")) for one in MUTATIONS])
def test_without_its_protection_the_test_of_a_fault_fails(changed: Path, mutation: FaultMutation) -> None:
    done = run_tests(changed, mutation.test, seconds=SECONDS_EACH)
    told = f"{mutation.old!r} -> {mutation.new!r}:\n{done.stdout[-3000:]}{done.stderr[-1000:]}"
    assert done.returncode == 1, f"no test fails after {told}"
    assert outcome(done, mutation.test) & {"FAILED", "ERROR"}, f"the test broke off before its end after {told}"
    assert not CANNOT_RUN.search(done.stdout), f"nothing can run after {told}"


def test_every_removal_is_of_a_text_that_stands_once() -> None:
    counts = {(one.file, one.old): (ROOT / one.file).read_text(encoding="utf-8").count(one.old) for one in MUTATIONS}
    assert {removal: count for removal, count in counts.items() if count != 1} == {}
    assert all(one.old != one.new for one in MUTATIONS)


def test_every_removal_names_a_test_that_is_there() -> None:
    for node in {one.test for one in MUTATIONS}:
        file, _, name = node.partition("::")
        assert re.search(rf"^(?:async )?def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), node


def test_the_page_of_faults_has_the_removals() -> None:
    assert table() in (ROOT / "docs/faults.md").read_text(encoding="utf-8")


def test_the_page_of_faults_names_only_tests_that_are_there() -> None:
    sources = [
        path.read_text(encoding="utf-8") for room in ("services", "store") for path in (ROOT / "tests" / room).glob("*.py")
    ]
    there = [name for text in sources for name in re.findall(r"^(?:async )?def (test_\w+)\(", text, re.MULTILINE)]
    page = (ROOT / "docs/faults.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+\*?)`", page)
    assert len(named) > 20
    assert [one for one in named if not any(fnmatch(name, one) for name in there)] == []
    # And the page knows every row that has a test.
    faults = {name for name in there if name.startswith("test_fault_")}
    assert {name for name in faults if not any(fnmatch(name, one) for one in named)} == set()
