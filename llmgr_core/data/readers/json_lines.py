"""JSON lines: one object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from llmgr_core.data.readers.bad_rows import BadRow, RowError
from llmgr_core.data.readers.byte_chunks import ByteChunk, ChunkReader, end_of_last_line
from llmgr_core.data.readers.source import NotColumnarError, Piece, Row

if TYPE_CHECKING:
    import pyarrow as pa

PEEKED_LINES = 200
SMALLEST_SPLIT = 64 * 2**10
PARTS = 16
# An object column becomes one column for each key that any row has: with many keys, few rows at a time.
LARGEST_INFERRED = 2**20


class JsonLines:
    """A file of JSON lines, plain or gzipped.

    Args:
        path: the file.
        chunk_bytes: bytes held at a time.
    """

    may_have_more = True

    def __init__(self, path: Path, chunk_bytes: int) -> None:
        self.path = path
        self._chunk_bytes = chunk_bytes
        self._peeked = self._peek()
        self.columns = tuple(dict.fromkeys(key for row in self._peeked for key in row))
        self._reader = ChunkReader(path, chunk_bytes, end_of_last_line)
        self.size = self._reader.size

    @property
    def position(self) -> int:
        return self._reader.position

    def pieces(self, columns: Mapping[str, str]) -> Iterator[Piece]:
        shape = _Shape(dict(columns), {column: self._type(field, column) for field, column in columns.items()})
        for chunk in self._reader:
            yield _JsonPiece(chunk, shape)

    def _peek(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for chunk in ChunkReader(self.path, min(self._chunk_bytes, 2**18), end_of_last_line):
            for line in chunk.data.splitlines()[:PEEKED_LINES]:
                try:
                    row = orjson.loads(line)
                except orjson.JSONDecodeError:
                    continue
                if isinstance(row, dict):
                    rows.append(row)
            if rows:
                break
        return rows

    def _type(self, field: str, column: str) -> pa.DataType | None:
        """Arrow type of a column as the first rows have it; None: let Arrow infer it (objects)."""
        import pyarrow as pa

        values = [row[column] for row in self._peeked if row.get(column) is not None]
        number = pa.float64() if field in ("timestamp", "timestamps") else pa.int64()

        def scalar(samples: list[Any]) -> pa.DataType:
            numeric = bool(samples) and all(isinstance(one, int | float) and not isinstance(one, bool) for one in samples)
            return number if numeric else pa.string()

        if field == "attributes":
            return None
        lists = [value for value in values if isinstance(value, list)]
        inner = [one for value in lists for one in value if one is not None]
        if field in ("items", "timestamps"):
            return pa.list_(scalar(inner))
        if field == "categories" and (not values or (lists and (not inner or isinstance(inner[0], list)))):
            return pa.list_(pa.list_(pa.string()))
        return pa.list_(pa.string()) if lists else scalar(values)


@dataclass(frozen=True)
class _Shape:
    columns: dict[str, str]
    types: dict[str, Any]


@dataclass(frozen=True)
class _JsonPiece:
    chunk: ByteChunk
    shape: _Shape

    def table(self) -> pa.Table:
        import pyarrow as pa
        import pyarrow.json as arrow_json

        data = self.chunk.data
        # Arrow lets these through, and a bad row must not depend on the path it took
        if b"\0" in data or b"\\u0000" in data or b"NaN" in data or b"Infinity" in data:
            raise NotColumnarError
        typed = {column: kind for column, kind in self.shape.types.items() if kind is not None}
        inferred = [column for column, kind in self.shape.types.items() if kind is None]
        infer = any(column.encode() in data for column in inferred)
        if infer and len(data) > LARGEST_INFERRED:
            raise NotColumnarError
        try:
            if not data.isascii():
                data.decode("utf-8")
            table = arrow_json.read_json(
                pa.BufferReader(data),
                read_options=arrow_json.ReadOptions(use_threads=False, block_size=len(data) + 1),
                parse_options=arrow_json.ParseOptions(
                    explicit_schema=pa.schema(list(typed.items())), unexpected_field_behavior="infer" if infer else "ignore"
                ),
            )
            table.select(list(typed)).validate(full=True)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError) as error:
            raise NotColumnarError from error
        if table.num_rows != self.chunk.num_lines:
            raise NotColumnarError
        present = {field: column for field, column in self.shape.columns.items() if column in table.column_names}
        return pa.table({field: table.column(column) for field, column in present.items()})

    def lines(self, rows: int) -> Sequence[int]:
        return range(self.chunk.first_line, self.chunk.first_line + rows)

    def text(self, row: int) -> str:
        return self.chunk.data.split(b"\n", row + 1)[row].decode("utf-8", "backslashreplace")

    def split(self) -> list[Piece]:
        if len(self.chunk.data) < SMALLEST_SPLIT:
            return []
        return [_JsonPiece(chunk, self.shape) for chunk in self.chunk.split(PARTS, end_of_last_line)]

    def rows(self) -> Iterator[Row]:
        number = self.chunk.first_line - 1
        lines = self.chunk.data.split(b"\n")
        if lines[-1] == b"":
            lines.pop()
        for line in lines:
            number += 1
            if not line.strip():
                continue
            text = line.decode("utf-8", "backslashreplace")
            try:
                record = _parse(line)
            except RowError as error:
                yield Row(number, text, error)
                continue
            yield Row(number, text, {field: record.get(column) for field, column in self.shape.columns.items()})


def _parse(line: bytes) -> dict[str, Any]:
    if b"\0" in line:
        raise RowError(BadRow.NUL, "")
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RowError(BadRow.INVALID_UTF8, f"byte {error.start + 1}") from None
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        record = _parse_with_nan(line, error)
    if not isinstance(record, dict):
        raise RowError(BadRow.WRONG_TYPE, "not a JSON object")
    return record


def _parse_with_nan(line: bytes, error: Exception) -> Any:
    """NaN is no JSON, but Python's own writer puts it there; the row is judged by where it stands."""
    if b"NaN" in line or b"Infinity" in line:
        try:
            return json.loads(line)
        except (ValueError, RecursionError):
            pass
    raise RowError(BadRow.BROKEN_ROW, f"not JSON: {error}")
