"""Every kernel's tests notice when its formula, its mask or its gradient is changed.

Each change is applied to a copy of the sources, and the test it names must fail there, though it passes on the copy as it is.
`make test` tries one change a kernel, `make test-all` all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from launched_kernels import ROOT, launched_kernels
from mutated_sources import copy_sources, exchanged, not_standing_once, run_tests
from mutations import Mutation, all_mutations

COPIED = ("kernels", "llmgr_core", "tests/kernels", "tests/ranker", "tests/*.py", "pyproject.toml")
# A change must make a result wrong; one that makes a program that cannot run proves nothing.
CANNOT_RUN = re.compile(
    r"^E\s+(?:\w+\.)*(?:SyntaxError|NameError|ImportError|ModuleNotFoundError|AttributeError)\b", re.MULTILINE
)
MUTATIONS = all_mutations()
KERNELS = launched_kernels()


def tried_in_make_test() -> set[Mutation]:
    """The first change to each kernel; one that stands in a function of several kernels counts for all of them."""
    chosen: set[Mutation] = set()
    for parts in KERNELS.values():
        of_kernel = [one for one in MUTATIONS if any(part.holds(one.file, one.old) for part in parts)]
        if of_kernel and not chosen & set(of_kernel):
            chosen.add(of_kernel[0])
    return chosen


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A copy in which every test that is about to be named passes."""
    copy = tmp_path_factory.mktemp("mutations")
    copy_sources(copy, COPIED)
    here = [item for item in request.session.items if item.path == Path(__file__) and hasattr(item, "callspec")]
    nodes = dict.fromkeys(item.callspec.params["mutation"].test for item in here if "mutation" in item.callspec.params)
    done = run_tests(copy, *nodes)
    assert done.returncode == 0, f"on the sources as they are:\n{done.stdout[-6000:]}{done.stderr[-2000:]}"
    for node in nodes:
        assert f"PASSED {node}" in done.stdout, f"{node} did not run"
    return copy


@pytest.fixture
def changed(tree: Path, mutation: Mutation) -> Iterator[Path]:
    """The copy with one change in it."""
    with exchanged(tree / mutation.file, mutation.old, mutation.new):
        yield tree


def parameters() -> Iterator[object]:
    quick = tried_in_make_test()
    for number, one in enumerate(MUTATIONS):
        name = f"{Path(one.file).parent.name}-{Path(one.file).stem}-{number}"
        yield pytest.param(one, id=name, marks=() if one in quick else pytest.mark.slow)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("mutation", list(parameters()))
def test_a_changed_kernel_fails_its_test(changed: Path, mutation: Mutation) -> None:
    done = run_tests(changed, mutation.test)
    told = f"{mutation.old!r} -> {mutation.new!r}:\n{done.stdout[-3000:]}{done.stderr[-1000:]}"
    assert done.returncode == 1, f"no test fails after {told}"
    assert f"FAILED {mutation.test}" in done.stdout, f"the test broke off before its end after {told}"
    assert not CANNOT_RUN.search(done.stdout), f"nothing can run after {told}"


@pytest.mark.parametrize("name", KERNELS)
def test_every_launched_kernel_has_a_change_that_is_tried(name: str) -> None:
    parts = KERNELS[name]
    assert any(part.holds(one.file, one.old) for one in MUTATIONS for part in parts), [part.file for part in parts]


def test_every_change_is_to_a_text_that_stands_once() -> None:
    assert not_standing_once((one.file, one.old) for one in MUTATIONS) == {}
    assert all(one.old != one.new for one in MUTATIONS)


def test_every_change_names_a_test_that_is_there() -> None:
    for node in {one.test for one in MUTATIONS}:
        file, _, name = node.partition("::")
        assert f"def {name.partition('[')[0]}(" in (ROOT / file).read_text(encoding="utf-8"), node
