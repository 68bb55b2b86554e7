"""Whole columns in the form that the steps after reading take; row_values.py defines what a value means."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llmgr_core.data.item_table import TEXT_FIELDS, item_schema
from llmgr_core.data.readers.bad_rows import RowError
from llmgr_core.data.readers.fields import Record
from llmgr_core.data.readers.row_values import BLANKS, NO_TEXT, NOT_A_NUMBER_TEXTS, categories_value
from llmgr_core.data.readers.source import NotColumnarError

if TYPE_CHECKING:
    import pyarrow as pa


def schema(record: Record) -> pa.Schema:
    """Columns of a record; ids are never null, timestamps are all null where the file has none."""
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    fields: dict[Record, pa.Schema] = {
        Record.ITEM: item_schema(),
        Record.SESSION: pa.schema([("session_id", text), ("items", pa.list_(text)), ("timestamps", pa.list_(number))]),
        Record.CLICK: pa.schema([("session_id", text), ("item_id", text), ("timestamp", number)]),
        Record.EXAMPLE: pa.schema([("items", pa.list_(text)), ("target", text)]),
    }
    return fields[record]


def columns(record: Record, table: pa.Table) -> pa.Table:
    """A table as it was read, converted to ``schema(record)``.

    Raises:
        NotColumnarError: a value that is bad, or that only the row path can convert.
    """
    import pyarrow as pa

    wanted = schema(record)
    arrays = []
    try:
        for field in wanted:
            if field.name not in table.column_names:
                arrays.append(pa.nulls(table.num_rows, field.type))
                continue
            column = table.column(field.name).combine_chunks()
            if isinstance(column, pa.ChunkedArray):
                column = column.chunk(0) if column.num_chunks else pa.array([], column.type)
            arrays.append(_converted(field.name, column))
        result = pa.table(arrays, schema=wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise NotColumnarError from error
    if record is Record.SESSION and "timestamps" in table.column_names and not _same_lengths(result):
        raise NotColumnarError
    return result


def _converted(name: str, column: pa.Array) -> pa.Array:
    if name in ("item_id", "session_id", "target"):
        return _ids(column)
    if name in TEXT_FIELDS:
        return _texts(column)
    if name == "categories":
        return _categories(column)
    if name == "attributes":
        return _attributes(column)
    if name == "timestamp":
        return _times(column)
    return _lists(column, _ids if name == "items" else _times)


def _plain(column: pa.Array) -> pa.Array:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        column = column.cast(pa.string())
    return column


def _ids(column: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    column = _plain(column)
    if pa.types.is_floating(column.type):
        # refuses what is not whole
        column = column.cast(pa.int64())
    if pa.types.is_integer(column.type):
        column = column.cast(pa.string())
    if not pa.types.is_string(column.type) or column.null_count:
        raise NotColumnarError
    # a blank is rare enough to leave ids that begin or end with one to the row path
    odd = pc.or_(pc.match_substring_regex(column, r"^[ \t\r\n]*$"), pc.is_in(column, value_set=pa.array(NOT_A_NUMBER_TEXTS)))
    if pc.any(odd).as_py():
        raise NotColumnarError
    return column


def _texts(column: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    column = _plain(column)
    if pa.types.is_null(column.type):
        return column.cast(pa.string())
    if pa.types.is_integer(column.type):
        return column.cast(pa.string())
    if pa.types.is_list(column.type) and pa.types.is_string(column.type.value_type):
        values = column.flatten()
        if values.null_count or pc.any(pc.equal(values, "")).as_py():
            raise NotColumnarError
        column = pc.binary_join(column, " ")
    if not pa.types.is_string(column.type):
        raise NotColumnarError
    empty = pc.is_in(pc.utf8_trim(column, characters=BLANKS), value_set=pa.array(NO_TEXT))
    return pc.if_else(empty, pa.scalar(None, pa.string()), column)


def _categories(column: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = pa.list_(pa.list_(pa.string()))
    column = _plain(column)
    if pa.types.is_null(column.type):
        return column.cast(kind)
    if pa.types.is_string(column.type):
        # few distinct texts: each is parsed once
        encoded = column.dictionary_encode()
        try:
            paths = [categories_value(text) for text in encoded.dictionary.to_pylist()]
        except RowError as error:
            raise NotColumnarError from error
        return pa.array(paths, kind).take(encoded.indices)
    if not pa.types.is_list(column.type):
        raise NotColumnarError
    inner = column.flatten()
    if pa.types.is_string(inner.type):
        _refuse_blanks(inner)
        # one path: a list of one list, or of none where the path is empty
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        offsets = np.concatenate([[0], np.cumsum(lengths > 0)]).astype(np.int32)
        filled = column.filter(pa.array(lengths > 0))
        return pa.ListArray.from_arrays(pa.array(offsets), filled).cast(kind)
    if pa.types.is_null(inner.type):
        return column.cast(kind)
    if not pa.types.is_list(inner.type) or inner.null_count or pc.any(pc.equal(pc.list_value_length(inner), 0)).as_py():
        raise NotColumnarError
    _refuse_blanks(inner.flatten())
    return column.cast(kind)


def _refuse_blanks(names: pa.Array) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_string(names.type) or names.null_count:
        raise NotColumnarError
    if pc.any(pc.is_in(pc.utf8_trim(names, characters=BLANKS), value_set=pa.array(NO_TEXT))).as_py():
        raise NotColumnarError


def _attributes(column: pa.Array) -> pa.Array:
    """From an object column: for each row its facts in order of their names."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = pa.map_(pa.string(), pa.string())
    if pa.types.is_null(column.type):
        return column.cast(kind)
    if not pa.types.is_struct(column.type):
        raise NotColumnarError
    names = [field.name for field in column.type]
    order = sorted(range(len(names)), key=names.__getitem__)
    children = column.flatten()
    rows, keys, values = [], [], [pa.array([], pa.string())]
    for place in order:
        child = _plain(children[place])
        if pa.types.is_null(child.type):
            continue
        if pa.types.is_integer(child.type) or pa.types.is_boolean(child.type):
            child = child.cast(pa.string())
        if not pa.types.is_string(child.type) or not names[place]:
            raise NotColumnarError
        said = pc.fill_null(pc.invert(pc.is_in(pc.utf8_trim(child, characters=BLANKS), value_set=pa.array(NO_TEXT))), False)
        said = pc.and_(said, child.is_valid())
        where = np.flatnonzero(said.to_numpy(zero_copy_only=False))
        rows.append(where)
        keys.append(np.full(len(where), place, dtype=np.int32))
        values.append(child.filter(said))
    row = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64)
    by_row = np.argsort(row, kind="stable")
    key = (np.concatenate(keys) if keys else np.zeros(0, dtype=np.int32))[by_row]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(column)))]).astype(np.int32)
    key_texts = pa.array(names, pa.string()).take(pa.array(key))
    return pa.MapArray.from_arrays(pa.array(offsets), key_texts, pa.concat_arrays(values).take(pa.array(by_row)))


def _times(column: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    column = _plain(column)
    if pa.types.is_string(column.type):
        try:
            column = column.cast(pa.float64())
        except pa.ArrowInvalid:
            column = column.cast(pa.timestamp("us"))
    if pa.types.is_date(column.type) or pa.types.is_timestamp(column.type):
        microseconds = column.cast(pa.timestamp("us")).cast(pa.int64())
        column = pc.divide(microseconds.cast(pa.float64()), 1e6)
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)) or column.null_count:
        raise NotColumnarError
    column = column.cast(pa.float64())
    if not pc.all(pc.is_finite(column)).as_py():
        raise NotColumnarError
    return column


def _lists(column: pa.Array, inner: object) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_large_list(column.type):
        column = column.cast(pa.list_(column.type.value_type))
    if not pa.types.is_list(column.type) or column.null_count:
        raise NotColumnarError
    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    if len(lengths) and lengths.min() == 0:
        raise NotColumnarError
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    assert callable(inner)
    return pa.ListArray.from_arrays(pa.array(offsets), inner(column.flatten()))


def _same_lengths(table: pa.Table) -> bool:
    import pyarrow.compute as pc

    return bool(
        pc.all(pc.equal(pc.list_value_length(table.column("items")), pc.list_value_length(table.column("timestamps")))).as_py()
    )
