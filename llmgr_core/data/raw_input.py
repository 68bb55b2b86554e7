"""What the readers hand over: the input files as columns on disk, before any filter."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

COLUMNS: dict[str, type[np.generic]] = {
    "owners": np.int32,
    "items": np.int32,
    "times": np.float64,
    "test_items": np.int32,
    "test_lengths": np.int64,
    "test_targets": np.int32,
}


@dataclass(frozen=True)
class RawInput:
    """Everything read, in a directory; item numbers are rows of the catalogue.

    Attributes:
        path: the directory.
    """

    path: Path

    @property
    def catalogue(self) -> Path:
        """Parquet file of every item, columns of item_table.item_schema."""
        return self.path / "catalogue.parquet"

    @property
    def owners(self) -> npt.NDArray[np.int32]:
        """int32 [T], session of each click; sessions are numbered in order of first appearance, with gaps."""
        return self._column("owners")

    @property
    def items(self) -> npt.NDArray[np.int32]:
        """int32 [T], item of each click."""
        return self._column("items")

    @property
    def times(self) -> npt.NDArray[np.float64] | None:
        """float64 [T], or None where the input has no timestamps."""
        return self._column("times") if self.facts["has_times"] else None

    @property
    def test_lengths(self) -> npt.NDArray[np.int64]:
        """int64 [n], prefix length of each example of the test file."""
        return self._column("test_lengths")

    @property
    def test_items(self) -> npt.NDArray[np.int32]:
        """int32, the prefixes of the test file, one after another."""
        return self._column("test_items")

    @property
    def test_targets(self) -> npt.NDArray[np.int32]:
        """int32 [n], target of each example of the test file."""
        return self._column("test_targets")

    @cached_property
    def facts(self) -> dict[str, Any]:
        """``num_items``, ``has_times``, ``has_test``, ``has_texts``, and ``files``: the account of each input file."""
        value: dict[str, Any] = json.loads((self.path / "facts.json").read_text(encoding="utf-8"))
        return value

    @property
    def is_complete(self) -> bool:
        """Whether reading came to its end; the facts are written last."""
        return (self.path / "facts.json").is_file()

    def _column(self, name: str) -> npt.NDArray[Any]:
        path = self.path / f"{name}.bin"
        if path.stat().st_size == 0:
            return np.zeros(0, dtype=COLUMNS[name])
        mapped: npt.NDArray[Any] = np.memmap(path, dtype=COLUMNS[name], mode="r")
        return mapped.view(np.ndarray)


class RawInputWriter:
    """Writes the columns of a RawInput as they come; use as a context.

    Args:
        path: the directory; what an unfinished reading left there is overwritten.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir(parents=True, exist_ok=True)
        self._files: dict[str, IO[bytes]] = {}

    def __enter__(self) -> RawInputWriter:
        self._files = {name: (self._path / f"{name}.bin").open("wb") for name in COLUMNS}
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def append(self, name: str, values: npt.NDArray[Any]) -> None:
        """Add values to a column."""
        self._files[name].write(np.ascontiguousarray(values, dtype=COLUMNS[name]).tobytes())

    def finish(self, facts: dict[str, Any]) -> RawInput:
        """Close the columns and declare the reading complete."""
        self.__exit__()
        unfinished = self._path / "facts.unfinished"
        unfinished.write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")
        unfinished.replace(self._path / "facts.json")
        return RawInput(self._path)
