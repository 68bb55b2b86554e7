"""Imports go down only: kernels <- llmgr_core <- {services, trainer}; nothing in circles."""

from __future__ import annotations

import pytest
from source_tree import MODULES, PACKAGES, ROOT, imports_of, module_name, python_files

MAY_IMPORT = {
    "kernels": {"kernels"},
    "llmgr_core": {"kernels", "llmgr_core"},
    "services": {"kernels", "llmgr_core", "services"},
    "trainer": {"kernels", "llmgr_core", "trainer"},
}
# What a package must do without, wherever in the code the import stands.
NEVER = {
    "kernels": {"pydantic", "click", "rich", "safetensors", "transformers"},
    "services.ranking": {"transformers", "peft", "deepspeed", "pyarrow", "gguf"},
    "services.client": {"transformers", "peft", "deepspeed", "pyarrow", "gguf", "torch"},
}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_stands_below_it(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{found.line} imports {found.module}"
        for path in python_files(package)
        for found in imports_of(path)
        if (top := found.module.partition(".")[0]) in PACKAGES and top not in MAY_IMPORT[package]
    ]
    assert not wrong


@pytest.mark.parametrize("package", NEVER)
def test_a_package_does_without_what_its_host_does_not_have(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{found.line} imports {found.module}"
        for path in python_files(package.replace(".", "/"))
        for found in imports_of(path)
        if found.module.partition(".")[0] in NEVER[package]
    ]
    assert not wrong


def test_tests_and_benchmarks_are_imported_by_no_package() -> None:
    for path in python_files(*PACKAGES):
        assert not {found.module.partition(".")[0] for found in imports_of(path)} & {"tests", "benchmarks"}, path


def test_modules_do_not_import_each_other_in_circles() -> None:
    edges = {
        name: {one.module for one in imports_of(path) if one.at_once and one.module in MODULES and one.module != name}
        for name, path in MODULES.items()
    }
    done: set[str] = set()
    for start in sorted(edges):
        circle = _circle(start, edges, done, [])
        assert circle is None, " -> ".join(circle or [])


def _circle(name: str, edges: dict[str, set[str]], done: set[str], way: list[str]) -> list[str] | None:
    if name in way:
        return [*way[way.index(name) :], name]
    if name in done:
        return None
    for other in sorted(edges[name]):
        found = _circle(other, edges, done, [*way, name])
        if found:
            return found
    done.add(name)
    return None


def test_the_reader_of_imports_sees_every_form() -> None:
    path = ROOT / "llmgr_core" / "artefacts" / "__init__.py"
    assert {found.module for found in imports_of(path)} == {"llmgr_core.artefacts.directory", "llmgr_core.artefacts.manifest"}
    assert module_name(path) == "llmgr_core.artefacts"
