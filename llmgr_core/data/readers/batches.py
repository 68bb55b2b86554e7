"""A file as batches of good records: columns wherever possible, row by row only around a bad row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llmgr_core.data.readers.bad_rows import BadRow, BadRows, RowError
from llmgr_core.data.readers.columns import columns, schema
from llmgr_core.data.readers.fields import Record
from llmgr_core.data.readers.row_values import row_values
from llmgr_core.data.readers.source import NotColumnarError, Piece, Source

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

ROWS_AT_A_TIME = 8192


@dataclass(frozen=True)
class RecordBatch:
    """Neighbouring records that can be read; whether their ids make sense is for the reader above to say.

    Attributes:
        table: columns of ``columns.schema(record)``.
        lines: line number of each row.
        text: a row as it stands in the file.
    """

    table: pa.Table
    lines: Sequence[int]
    text: Callable[[int], str]

    def reject(self, bad: npt.NDArray[np.bool_], kind: BadRow, account: BadRows) -> RecordBatch:
        """The batch without the rows that are True in this mask, which are counted."""
        where = np.flatnonzero(bad)
        if len(where) == 0:
            return self
        self.report(where, kind, account)
        kept = np.flatnonzero(~bad)
        text, lines = self.text, self.lines
        return RecordBatch(self.table.take(kept), [lines[row] for row in kept.tolist()], lambda row: text(int(kept[row])))

    def report(self, rows: npt.NDArray[np.integer], kind: BadRow, account: BadRows) -> None:
        """Count rows as bad; the first ones are quoted."""
        for number, row in enumerate(rows):
            if not account.wants_quote(kind):
                account.count(kind, len(rows) - number)
                return
            account.add(kind, self.lines[int(row)], self.text(int(row)))


def record_batches(source: Source, record: Record, fields: Mapping[str, str], account: BadRows) -> Iterator[RecordBatch]:
    """Read a file from its beginning.

    Args:
        source: the file.
        record: what a row is.
        fields: the column of each field.
        account: counts all rows, and those that cannot be read.
    """
    for piece in source.pieces(fields):
        yield from _read(piece, record, account)


def _read(piece: Piece, record: Record, account: BadRows) -> Iterator[RecordBatch]:
    try:
        table = columns(record, piece.table())
        lines = piece.lines(table.num_rows)
    except NotColumnarError:
        parts = piece.split()
        for part in parts:
            yield from _read(part, record, account)
        if not parts:
            yield from _read_rows(piece, record, account)
        return
    account.rows += table.num_rows
    if table.num_rows:
        yield RecordBatch(table, lines, piece.text)


def _read_rows(piece: Piece, record: Record, account: BadRows) -> Iterator[RecordBatch]:
    good: list[dict[str, object]] = []
    lines: list[int] = []
    texts: list[str] = []

    def batch() -> RecordBatch:
        import pyarrow as pa

        names = schema(record).names
        table = pa.table({name: [row[name] for row in good] for name in names}, schema=schema(record))
        return RecordBatch(table, list(lines), texts[:].__getitem__)

    for row in piece.rows():
        account.rows += 1
        try:
            if isinstance(row.values, Exception):
                raise row.values
            values = row_values(record, row.values)
        except RowError as error:
            account.add(error.kind, row.line, row.text, error.detail)
            continue
        good.append(values)
        lines.append(row.line)
        texts.append(row.text)
        if len(good) == ROWS_AT_A_TIME:
            yield batch()
            good, lines, texts = [], [], []
    if good:
        yield batch()
