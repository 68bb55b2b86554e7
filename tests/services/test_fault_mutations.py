"""Every test of a fault was seen to fail without what protects from that fault: each removal, on a copy of the sources.

`make test` looks only whether the removals still fit the sources; `make test-all` tries each of them.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
from fault_mutations import MUTATIONS, table
from fault_removal import FaultMutation
from mutated_sources import ROOT, copy_sources, exchanged, not_standing_once, run_tests

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
NOT_SLOW = ("-m", "not slow")


def outcome(done: subprocess.CompletedProcess[str], node: str) -> set[str]:
    """What became of a test, or of its cases."""
    return set(re.findall(rf"^(PASSED|FAILED|ERROR) {re.escape(node)}(?:\[| |$)", done.stdout, re.MULTILINE))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A copy in which every test that is about to be named passes."""
    copy = tmp_path_factory.mktemp("mutations")
    copy_sources(copy, COPIED)
    here = [item for item in request.session.items if item.path == Path(__file__) and hasattr(item, "callspec")]
    nodes = dict.fromkeys(item.callspec.params["mutation"].test for item in here)
    done = run_tests(copy, *NOT_SLOW, "--timeout=600", *nodes)
    assert done.returncode == 0, f"on the sources as they are:\n{done.stdout[-6000:]}{done.stderr[-2000:]}"
    for node in nodes:
        assert outcome(done, node) == {"PASSED"}, f"{node} did not run"
    return copy


@pytest.fixture
def changed(tree: Path, mutation: FaultMutation) -> Iterator[Path]:
    """The copy without one protection."""
    with exchanged(tree / mutation.file, mutation.old, mutation.new):
        yield tree


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mutation", [pytest.param(one, id=one.protection.replace(" ", "-")) for one in MUTATIONS])
def test_without_its_protection_the_test_of_a_fault_fails(changed: Path, mutation: FaultMutation) -> None:
    done = run_tests(changed, *NOT_SLOW, f"--timeout={SECONDS_EACH}", mutation.test)
    told = f"{mutation.old!r} -> {mutation.new!r}:\n{done.stdout[-3000:]}{done.stderr[-1000:]}"
    assert done.returncode == 1, f"no test fails after {told}"
    assert outcome(done, mutation.test) & {"FAILED", "ERROR"}, f"the test broke off before its end after {told}"
    assert not CANNOT_RUN.search(done.stdout), f"nothing can run after {told}"


def test_every_removal_is_of_a_text_that_stands_once() -> None:
    assert not_standing_once((one.file, one.old) for one in MUTATIONS) == {}
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
