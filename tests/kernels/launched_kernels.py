"""The Triton kernels that are launched, and the functions each is made of, read from the sources without importing them."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class TritonFunction:
    """A function under ``@triton.jit``.

    Attributes:
        name: of the function.
        file: relative to the repository.
        lines: first line, decorators included, and last.
        names: every name in its body.
    """

    name: str
    file: str
    lines: tuple[int, int]
    names: frozenset[str]

    @property
    def folder(self) -> str:
        """Of the op."""
        return Path(self.file).parent.name

    def holds(self, file: str, text: str) -> bool:
        """Whether the text stands inside this function."""
        source = (ROOT / self.file).read_text(encoding="utf-8")
        place = source.find(text)
        if file != self.file or place < 0:
            return False
        line = source.count("\n", 0, place) + 1
        return self.lines[0] <= line <= self.lines[1]


def _names(node: ast.AST) -> set[str]:
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}


def _read() -> tuple[list[TritonFunction], set[tuple[str, str]]]:
    """(every Triton function, (folder, name) of those launched as ``name[grid](...)``)."""
    functions: list[TritonFunction] = []
    launched: set[tuple[str, str]] = set()
    for path in sorted((ROOT / "kernels").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and any("triton.jit" in ast.unparse(one) for one in node.decorator_list):
                lines = min(one.lineno for one in node.decorator_list), node.end_lineno or node.lineno
                names = frozenset(_names(node)) - {node.name}
                functions.append(TritonFunction(node.name, str(path.relative_to(ROOT)), lines, names))
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Subscript):
                launched |= {(path.parent.name, name) for name in _names(node.func.value)}
    return functions, launched


def launched_kernels() -> dict[str, list[TritonFunction]]:
    """By name of each launched kernel: itself, and the Triton functions it calls, and those they call."""
    functions, launched = _read()
    kernels = {}
    for kernel in functions:
        if (kernel.folder, kernel.name) not in launched:
            continue
        parts = [kernel]
        for part in parts:
            called = [other for other in functions if other.name in part.names and other not in parts]
            own = {other.name for other in called if other.folder == part.folder}
            # A name of the own folder hides the same name of another.
            parts += [other for other in called if other.folder == part.folder or other.name not in own]
        kernels[kernel.name] = parts
    return kernels
