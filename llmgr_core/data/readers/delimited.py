"""CSV, TSV and RecBole's atomic files: one record a line, or a quoted field over several."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llmgr_core.data.readers.bad_rows import BadRow, RowError
from llmgr_core.data.readers.byte_chunks import ByteChunk, ChunkReader, end_of_last_line
from llmgr_core.data.readers.source import NotColumnarError, Piece, Row
from llmgr_core.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

SMALLEST_SPLIT = 64 * 2**10
PARTS = 16
PEEKED_LINES = 200
LONGEST_RECORD = 1000
LIST_FIELDS = ("items", "timestamps")
LIST_SEPARATORS = ("|", ";", ",", " ")

csv.field_size_limit(2**31 - 1)


@dataclass(frozen=True)
class Dialect:
    """How a file is written.

    Attributes:
        delimiter: between fields.
        quoted: whether a field may stand in double quotes; inside them, line ends and delimiters are text.
        header: column names in file order.
        list_separator: between the ids of a field that holds several.
    """

    delimiter: str
    quoted: bool
    header: tuple[str, ...]
    list_separator: str

    def cut(self, data: bytes) -> int:
        """Where these bytes may be cut; see ChunkReader."""
        return end_of_last_record(data, self.delimiter) if self.quoted else end_of_last_line(data)


class Delimited:
    """A file with a header line: .csv, .tsv, or RecBole's .inter and .item (``name:type`` headers, tabs, no quotes).

    Args:
        path: the file, plain or gzipped.
        chunk_bytes: bytes held at a time.
        kind: "csv", "tsv", "inter" or "item".

    Raises:
        InputError: an empty file, or a header that is none.
    """

    may_have_more = False

    def __init__(self, path: Path, chunk_bytes: int, kind: str) -> None:
        self.path = path
        recbole = kind in ("inter", "item")
        first = next(iter(ChunkReader(path, 2**18, end_of_last_line)), None)
        if first is None:
            raise InputError(f"{path} is empty", "check the path")
        head = [line.removesuffix("\r") for line in first.data.decode("utf-8", "backslashreplace").split("\n")]
        delimiter = "\t" if kind != "csv" else max(",;\t|", key=head[0].count)
        names = next(csv.reader([head[0]], delimiter=delimiter, quoting=csv.QUOTE_NONE if recbole else csv.QUOTE_MINIMAL))
        if recbole:
            names = [_untyped(name, path) for name in names]
        if len(set(names)) != len(names):
            raise InputError(f"{path} has a column name twice: {', '.join(names)}", "rename one")
        self.columns = tuple(names)
        self._dialect = Dialect(delimiter, not recbole, self.columns, " ")
        self._peeked = head[1:PEEKED_LINES]
        self._reader = ChunkReader(path, chunk_bytes, self._dialect.cut)
        self.size = self._reader.size

    @property
    def position(self) -> int:
        return self._reader.position

    def pieces(self, columns: Mapping[str, str]) -> Iterator[Piece]:
        dialect = self._dialect
        if dialect.quoted:
            dialect = replace(dialect, list_separator=self._list_separator(columns))
        first = True
        for chunk in self._reader:
            body = chunk
            if first:
                first = False
                end = chunk.data.find(b"\n") + 1
                body = ByteChunk(chunk.data[end:] if end else b"", 2)
            if body.data:
                yield _DelimitedPiece(body, dialect, dict(columns))

    def _list_separator(self, columns: Mapping[str, str]) -> str:
        """The first of LIST_SEPARATORS that the first rows use between ids."""
        used = ""
        for line in self._peeked:
            cells = _cells(line.encode("utf-8", "surrogateescape"), self._dialect)
            if cells is not None:
                named = dict(zip(self.columns, cells, strict=True))
                used += "".join(named[columns[field]] for field in LIST_FIELDS if field in columns)
        return next((separator for separator in LIST_SEPARATORS if separator in used), " ")


@dataclass(frozen=True)
class _DelimitedPiece:
    chunk: ByteChunk
    dialect: Dialect
    columns: dict[str, str]

    def table(self) -> pa.Table:
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.csv as arrow_csv

        data = self.chunk.data
        if b"\0" in data:
            raise NotColumnarError
        wanted = list(self.columns.values())
        try:
            if not data.isascii():
                data.decode("utf-8")
            table = arrow_csv.read_csv(
                pa.BufferReader(data),
                read_options=arrow_csv.ReadOptions(
                    use_threads=False, block_size=len(data) + 1, column_names=list(self.dialect.header)
                ),
                parse_options=arrow_csv.ParseOptions(
                    delimiter=self.dialect.delimiter,
                    quote_char='"' if self.dialect.quoted else False,
                    newlines_in_values=self.dialect.quoted,
                    ignore_empty_lines=False,
                ),
                convert_options=arrow_csv.ConvertOptions(
                    check_utf8=True,
                    column_types=dict.fromkeys(wanted, pa.string()),
                    include_columns=wanted,
                    strings_can_be_null=False,
                ),
            )
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            raise NotColumnarError from error
        # with a line end inside a field, or an empty line, rows no longer tell their line
        if table.num_rows != self.chunk.num_lines:
            raise NotColumnarError
        arrays = {}
        for field, column in self.columns.items():
            values = table.column(column)
            if field in LIST_FIELDS:
                if pc.any(pc.match_substring_regex(values, r"^\s*\[|^\s|\s$")).as_py():
                    raise NotColumnarError
                values = pc.split_pattern(values, self.dialect.list_separator)
            arrays[field] = values
        return pa.table(arrays)

    def lines(self, rows: int) -> Sequence[int]:
        return range(self.chunk.first_line, self.chunk.first_line + rows)

    def text(self, row: int) -> str:
        return self.chunk.data.split(b"\n", row + 1)[row].decode("utf-8", "backslashreplace")

    def split(self) -> list[Piece]:
        if len(self.chunk.data) < SMALLEST_SPLIT:
            return []
        return [_DelimitedPiece(chunk, self.dialect, self.columns) for chunk in self.chunk.split(PARTS, self.dialect.cut)]

    def rows(self) -> Iterator[Row]:
        for number, lines in _records(self.chunk, self.dialect):
            raw = b"\n".join(lines)
            text = raw.decode("utf-8", "backslashreplace")
            try:
                named = self._named_cells(raw)
            except RowError as error:
                yield Row(number, text, error)
                continue
            values: dict[str, object] = {field: named[column] for field, column in self.columns.items()}
            for field in LIST_FIELDS:
                if field in values:
                    values[field] = split_list(named[self.columns[field]], self.dialect.list_separator)
            yield Row(number, text, values)

    def _named_cells(self, raw: bytes) -> dict[str, str]:
        if b"\0" in raw:
            raise RowError(BadRow.NUL, "")
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise RowError(BadRow.INVALID_UTF8, f"byte {error.start + 1}") from None
        if self.dialect.quoted and _is_open(raw, self.dialect.delimiter):
            raise RowError(BadRow.BROKEN_ROW, "a double quote is not closed")
        cells = _cells(raw, self.dialect)
        if cells is None:
            raise RowError(BadRow.BROKEN_ROW, f"not {len(self.dialect.header)} fields")
        return dict(zip(self.dialect.header, cells, strict=True))


def split_list(text: str, separator: str) -> list[str]:
    """The ids of one field: parted by ``separator``, or written as a JSON or Python list of plain ids."""
    text = text.strip()
    if text.startswith("[") and text.endswith("]"):
        inner = text[1:-1].strip()
        return [part.strip().strip("\"'") for part in inner.split(",")] if inner else []
    return text.split(separator) if text else []


def end_of_last_record(data: bytes, delimiter: str) -> int:
    """Cut for CSV: after the last line end that stands in no quoted field."""
    end = data.rfind(b"\n") + 1
    if end == 0 or b'"' not in data:
        return end
    spans = np.array([match.span() for match in _quoted_fields(delimiter).finditer(data)], dtype=np.int64).reshape(-1, 2)
    line_ends = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == ord("\n"))
    field = np.searchsorted(spans[:, 0], line_ends) - 1
    outside = line_ends[(field < 0) | (line_ends >= np.append(spans[:, 1], 0)[field])]
    return int(outside[-1]) + 1 if len(outside) else 0


@cache
def _quoted_fields(delimiter: str) -> re.Pattern[bytes]:
    """A field in double quotes, up to the end of the data where its closing quote is missing.

    A quote that does not open a field is text.
    """
    before = re.escape(delimiter).encode()
    return re.compile(rb"(?:\A|(?<=[\n" + before + rb']))"[^"]*(?:""[^"]*)*(?P<close>"?)')


def _records(chunk: ByteChunk, dialect: Dialect) -> Iterator[tuple[int, list[bytes]]]:
    """The lines of each record, with the number of the first; a record whose quotes never close is one line."""
    lines = chunk.data.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    place = 0
    while place < len(lines):
        length = 1
        if dialect.quoted and _is_open(lines[place], dialect.delimiter):
            longest = min(LONGEST_RECORD, len(lines) - place)
            closing = (
                number
                for number in range(2, longest + 1)
                if b'"' in lines[place + number - 1]
                and not _is_open(b"\n".join(lines[place : place + number]), dialect.delimiter)
            )
            length = next(closing, 1)
        record = lines[place : place + length]
        if length > 1 and _cells(b"\n".join(record), dialect) is None:
            record, length = record[:1], 1
        if any(line.strip() for line in record):
            yield chunk.first_line + place, record
        place += length


def _is_open(record: bytes, delimiter: str) -> bool:
    """Whether a quoted field has not been closed at the end of these bytes."""
    return b'"' in record and any(not match["close"] for match in _quoted_fields(delimiter).finditer(record))


def _cells(record: bytes, dialect: Dialect) -> list[str] | None:
    """The fields of a record, None where they are not as many as the header's."""
    text = record.decode("utf-8", "surrogateescape").removesuffix("\r")
    if not dialect.quoted:
        cells = text.split(dialect.delimiter)
    else:
        try:
            cells = next(csv.reader([text], delimiter=dialect.delimiter))
        except (csv.Error, StopIteration):
            return None
    return cells if len(cells) == len(dialect.header) else None


def _untyped(name: str, path: Path) -> str:
    field, colon, kind = name.strip().partition(":")
    if not colon or kind not in ("token", "token_seq", "float", "float_seq"):
        raise InputError(
            f"{path}: column {name!r} has no RecBole type", "a header reads item_id:token, title:token_seq, timestamp:float"
        )
    return field
