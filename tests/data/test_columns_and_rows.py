"""The fast path over columns and the slow path over rows are one definition: they agree on every input."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmgr_core.data.item_table import item_from_row
from llmgr_core.data.readers import BadRow, BadRows, open_source, record_batches
from llmgr_core.data.readers.bad_rows import RowError
from llmgr_core.data.readers.fields import Record, find_columns
from llmgr_core.data.readers.row_values import row_values

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**40), 2**40),
    st.floats(),
    st.text(max_size=4),
    st.sampled_from(["", " ", "nan", "NaN", "null", "a > b", "a|b", "['x', 'y']", "2020-01-01", "12", "\0", "é", "\t", "1e5"]),
)
values = st.one_of(scalars, st.lists(scalars, max_size=3), st.lists(st.lists(scalars, max_size=2), max_size=2))
FIELDS = {
    Record.ITEM: {
        "item_id": scalars,
        "title": values,
        "description": values,
        "brand": scalars,
        "category": values,
        "attributes": st.one_of(scalars, st.dictionaries(st.sampled_from(["a", "b", "c", ""]), values, max_size=3)),
    },
    Record.SESSION: {"session_id": scalars, "items": values, "timestamps": values},
    Record.CLICK: {"session_id": scalars, "item_id": scalars, "timestamp": values},
    Record.EXAMPLE: {"items": values, "target": scalars},
}
# values that are alike in a column are what the fast path is for
ALIKE = {
    "item_id": [st.integers(0, 99), st.text("abc", min_size=1, max_size=3)],
    "session_id": [st.integers(0, 99), st.text("abc", min_size=1, max_size=3)],
    "target": [st.integers(0, 99), st.text("abc", min_size=1, max_size=3)],
    "title": [
        st.text(max_size=5),
        st.lists(st.text(max_size=3), max_size=3),
        st.integers(-(2**60), 2**60),
        st.none() | st.text("ab ", max_size=3),
    ],
    "category": [
        st.lists(st.lists(st.text("abn ", max_size=3), max_size=2), max_size=2),
        st.lists(st.text("ab ", max_size=3), max_size=3),
        st.text("ab>|[]' ", max_size=6),
    ],
    "attributes": [st.dictionaries(st.sampled_from("abc"), st.integers(0, 9) | st.text("ab ", max_size=2), max_size=3)],
    "items": [
        st.lists(st.integers(0, 99), min_size=1, max_size=4),
        st.lists(st.text("ab", min_size=1), min_size=1, max_size=3),
    ],
    "timestamp": [
        st.integers(0, 2**40),
        st.floats(0, 1e9),
        st.sampled_from(["2020-01-01", "2021-05-06T07:08:09.123456", "17"]),
    ],
}


@st.composite
def rows_of(draw: st.DrawFn, record: Record) -> list[dict[str, Any]]:
    columns = {name: draw(st.sampled_from(ALIKE.get(name, [strategy]))) for name, strategy in FIELDS[record].items()}
    rows = draw(st.lists(st.fixed_dictionaries(columns), min_size=1, max_size=6))
    wild = draw(st.lists(st.fixed_dictionaries({}, optional=FIELDS[record]), max_size=2))
    return [*rows, *wild]


def decoded(line: str) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(line)
    return row


@pytest.mark.parametrize("record", list(Record))
@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_reading_json_agrees_with_the_definition_of_each_value(record: Record, data: st.DataObject) -> None:
    rows = data.draw(rows_of(record))
    lines = [json.dumps(row) for row in rows]
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "rows.jsonl"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        source = open_source(path, data.draw(st.sampled_from([64, 2**20])))
        fields = {
            field: {"categories": "category"}.get(field, field) for field in find_columns(record, FIELDS[record], {}, path)
        }
        account = BadRows(path)
        found = [row for batch in record_batches(source, record, fields, account) for row in batch.table.to_pylist()]
    expected, bad = [], Counter[BadRow]()
    for line in lines:
        row = decoded(line)
        try:
            expected.append(row_values(record, {field: row.get(column) for field, column in fields.items()}))
        except RowError as error:
            bad[error.kind] += 1
    if record is Record.ITEM:
        assert [item_from_row(row) for row in found] == [item_from_row(row) for row in expected]
    else:
        assert found == expected
    assert account.counts == bad
    assert account.rows == len(lines)
