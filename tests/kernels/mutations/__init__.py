"""Changes to the kernels that a test must notice, a file an op: MUTATIONS lists (file, old text, new text, test)."""

from __future__ import annotations

import importlib
import pkgutil
from typing import NamedTuple


class Mutation(NamedTuple):
    """One change.

    Attributes:
        file: relative to the repository.
        old: text that stands exactly once in it.
        new: what takes its place.
        test: node id of a test that must fail then.
    """

    file: str
    old: str
    new: str
    test: str


def all_mutations() -> list[Mutation]:
    """Those of every op, in the order of the files' names."""
    modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    return [Mutation(*change) for module in modules for change in module.MUTATIONS]
