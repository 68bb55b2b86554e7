"""What every format offers to the reader above it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pyarrow as pa


class NotColumnarError(Exception):
    """A piece cannot be taken as columns, so its rows must be looked at one by one; says nothing about how bad it is."""


@dataclass(frozen=True)
class Row:
    """One row, looked at singly.

    Attributes:
        line: line (or, in a Parquet file, row) number, from 1.
        text: the row as it stands in the file, for quoting.
        values: value of each field, or the RowError that reading it met.
    """

    line: int
    text: str
    values: dict[str, Any] | Exception


class Piece(Protocol):
    """Some thousands of neighbouring rows of a file."""

    def table(self) -> pa.Table:
        """All rows as columns named by field.

        Raises:
            NotColumnarError: at least one row is not like the others.
        """
        ...

    def lines(self, rows: int) -> Sequence[int]:
        """Line number of each row of ``table``.

        Raises:
            NotColumnarError: rows and lines do not match.
        """
        ...

    def text(self, row: int) -> str:
        """A row of ``table`` as it stands in the file."""
        ...

    def split(self) -> list[Piece]:
        """Smaller pieces with the same rows; an empty list where it is too small for that to pay."""
        ...

    def rows(self) -> Iterator[Row]:
        """The rows one by one, bad ones included."""
        ...


class Source(Protocol):
    """An input file of some format.

    Attributes:
        path: the file.
        columns: names of its columns.
        may_have_more: whether rows further on may have columns that ``columns`` does not name.
        size: how far ``position`` goes.
    """

    path: Path
    columns: tuple[str, ...]
    may_have_more: bool
    size: int

    @property
    def position(self) -> int:
        """How much has been read, on the scale of ``size``."""
        ...

    def pieces(self, columns: Mapping[str, str]) -> Iterator[Piece]:
        """Read the file from its beginning.

        Args:
            columns: the column of each wanted field.
        """
        ...
