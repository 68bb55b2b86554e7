"""Parquet files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmgr_core.data.readers.bad_rows import BadRow, RowError
from llmgr_core.data.readers.source import NotColumnarError, Piece, Row
from llmgr_core.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

BYTES_PER_ROW = 256
SMALLEST_SPLIT = 512
PARTS = 16


class Parquet:
    """A Parquet file; its "lines" are row numbers, from 1.

    Args:
        path: the file.
        chunk_bytes: about how many bytes of rows are held at a time.

    Raises:
        InputError: not a Parquet file.
    """

    may_have_more = False

    def __init__(self, path: Path, chunk_bytes: int) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = path
        self._rows_at_a_time = max(chunk_bytes // BYTES_PER_ROW, 1)
        try:
            self._file = pq.ParquetFile(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"{path} is no readable Parquet file: {error}", "write the file again") from None
        self.columns = tuple(self._file.schema_arrow.names)
        self.size = self._file.metadata.num_rows
        self.position = 0

    def pieces(self, columns: Mapping[str, str]) -> Iterator[Piece]:
        import pyarrow as pa

        first = 1
        self.position = 0
        wanted = list(dict.fromkeys(columns.values()))
        try:
            for batch in self._file.iter_batches(batch_size=self._rows_at_a_time, columns=wanted, use_threads=False):
                yield _ParquetPiece(pa.Table.from_batches([batch]), first, dict(columns))
                first += batch.num_rows
                self.position = first - 1
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"{self.path} is damaged at or after row {first}: {error}", "write the file again") from None


@dataclass(frozen=True)
class _ParquetPiece:
    rows_table: pa.Table
    first: int
    columns: dict[str, str]

    def table(self) -> pa.Table:
        import pyarrow as pa

        arrays = {field: self.rows_table.column(column).combine_chunks() for field, column in self.columns.items()}
        try:
            for array in arrays.values():
                array.validate(full=True)
        except pa.ArrowInvalid as error:
            raise NotColumnarError from error
        if any(_holds_nul(array) for array in arrays.values()):
            raise NotColumnarError
        return pa.table(arrays)

    def lines(self, rows: int) -> Sequence[int]:
        return range(self.first, self.first + rows)

    def text(self, row: int) -> str:
        return _quoted(self._values(row))

    def split(self) -> list[Piece]:
        total = self.rows_table.num_rows
        if total < SMALLEST_SPLIT:
            return []
        step = -(-total // PARTS)
        return [
            _ParquetPiece(self.rows_table.slice(start, step), self.first + start, self.columns)
            for start in range(0, total, step)
        ]

    def rows(self) -> Iterator[Row]:
        for row in range(self.rows_table.num_rows):
            raw = self._values(row)
            try:
                values = {field: _decoded(value) for field, value in raw.items()}
            except RowError as error:
                yield Row(self.first + row, _quoted(raw), error)
                continue
            yield Row(self.first + row, _quoted(raw), values)

    def _values(self, row: int) -> dict[str, Any]:
        return {field: _scalar(self.rows_table.column(column), row) for field, column in self.columns.items()}


def _scalar(column: pa.ChunkedArray, row: int) -> Any:
    """One value as Python sees it; text that is not UTF-8 stays bytes."""
    value = column[row]
    try:
        return value.as_py()
    except UnicodeDecodeError:
        return value.as_buffer().to_pybytes() if hasattr(value, "as_buffer") else b"\xff"


def _decoded(value: Any) -> Any:
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise RowError(BadRow.INVALID_UTF8, f"byte {error.start + 1}") from None
    if isinstance(value, list):
        # a map column comes as a list of pairs
        if value and all(isinstance(one, tuple) for one in value):
            return {_decoded(key): _decoded(one) for key, one in value}
        return [_decoded(one) for one in value]
    if isinstance(value, dict):
        return {_decoded(key): _decoded(one) for key, one in value.items()}
    return value


def _holds_nul(array: pa.Array) -> bool:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        return _holds_nul(array.flatten())
    if pa.types.is_map(array.type):
        return _holds_nul(array.keys) or _holds_nul(array.items)
    if pa.types.is_struct(array.type):
        return any(_holds_nul(child) for child in array.flatten())
    if pa.types.is_dictionary(array.type):
        return _holds_nul(array.dictionary)
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type) or pa.types.is_binary(array.type):
        return bool(pc.any(pc.match_substring(array, "\0")).as_py())
    return False


def _quoted(values: dict[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False, default=repr)
