"""What the readers hand over: the input files as arrays on disk, before any filter."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class RawInput:
    """Everything read, in a directory; item numbers are rows of ``catalogue.parquet``.

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
        """int32 [T], session of each click."""
        return self._column("owners", np.int32)

    @property
    def items(self) -> npt.NDArray[np.int32]:
        """int32 [T], item of each click."""
        return self._column("items", np.int32)

    @property
    def times(self) -> npt.NDArray[np.float64] | None:
        """float64 [T], or None where the input has no timestamps."""
        return self._column("times", np.float64) if self.facts["has_times"] else None

    @property
    def test_lengths(self) -> npt.NDArray[np.int64]:
        """int64 [n], prefix length of each example of the test file."""
        return self._column("test_lengths", np.int64)

    @property
    def test_items(self) -> npt.NDArray[np.int32]:
        """int32, the prefixes of the test file, one after another."""
        return self._column("test_items", np.int32)

    @property
    def test_targets(self) -> npt.NDArray[np.int32]:
        """int32 [n], target of each example of the test file."""
        return self._column("test_targets", np.int32)

    @property
    def facts(self) -> dict[str, Any]:
        """Counts of the reading: ``has_times``, ``has_test``, ``has_texts``, ``bad_rows``."""
        value: dict[str, Any] = json.loads((self.path / "facts.json").read_text(encoding="utf-8"))
        return value

    def _column(self, name: str, kind: type[np.generic]) -> npt.NDArray[Any]:
        path = self.path / f"{name}.bin"
        return np.fromfile(path, dtype=kind)
