"""Bad rows are counted by kind, quoted with file and line, and skipped or fatal."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from input_files import items_of, read, sessions_of, write_rows

from llmgr_core.data.readers import BadRow
from llmgr_core.data.readers.bad_rows import BadRows
from llmgr_core.data.sources import Sources
from llmgr_core.errors import InputError

GOOD = 3000
BAD_PLACE = 1777


def json_line(session: Any = '"s1"', item: Any = '"a"', time: Any = "5") -> bytes:
    return f'{{"session_id": {session}, "item_id": {item}, "timestamp": {time}}}'.encode()


JSON_CLICKS = {
    BadRow.MISSING_ID: [
        json_line(item="null"),
        json_line(item='""'),
        json_line(session='"  "'),
        b'{"item_id": "a", "timestamp": 1}',
    ],
    BadRow.UNKNOWN_ITEM: [json_line(item='"zzz"'), json_line(item="17")],
    BadRow.BROKEN_ROW: [b'{"session_id": "s1", "item', b"x", b'{"item_id": "\\ud800"}', json_line() + json_line(), b"[" * 5000],
    BadRow.WRONG_TYPE: [
        json_line(item="[1]"),
        json_line(session="true"),
        json_line(item="1.5"),
        json_line(time='"soon"'),
        json_line(time="null"),
        b"[1, 2]",
        b"null",
    ],
    BadRow.NOT_A_NUMBER: [json_line(time="NaN"), json_line(item="NaN"), json_line(time="-Infinity"), json_line(item='"nan"')],
    BadRow.NUL: [json_line(item='"a\0"'), json_line(item='"a\\u0000"')],
    BadRow.INVALID_UTF8: [json_line(item='"\xff"').decode().encode("latin-1"), b'{"note": "\xc3", "session_id": 1}'],
}
CSV_CLICKS = {
    BadRow.MISSING_ID: [b"s1,,5", b",a,5", b'" ",a,5'],
    BadRow.UNKNOWN_ITEM: [b"s1,zzz,5"],
    BadRow.BROKEN_ROW: [b"s1,a", b"s1,a,5,6", b'"s1,a,5', b"s1"],
    BadRow.WRONG_TYPE: [b"s1,a,soon", b"s1,a,"],
    BadRow.NOT_A_NUMBER: [b"s1,a,nan", b"s1,NaN,5", b"s1,a,inf"],
    BadRow.NUL: [b"s1,a\0,5"],
    BadRow.INVALID_UTF8: [b"s1,\xff,5", b"s\xc3,a,5"],
}
CASES = [
    *((".jsonl", kind, bad) for kind, rows in JSON_CLICKS.items() for bad in rows),
    *((".csv", kind, bad) for kind, rows in CSV_CLICKS.items() for bad in rows),
    *((".inter", kind, bad.replace(b",", b"\t")) for kind, rows in CSV_CLICKS.items() for bad in rows if b'"' not in bad),
]
HEADERS = {
    ".jsonl": b"",
    ".csv": b"session_id,item_id,timestamp\n",
    ".inter": b"session_id:token\titem_id:token\ttimestamp:float\n",
}
LINES = {".jsonl": json_line(), ".csv": b"s1,a,5", ".inter": b"s1\ta\t5"}


def catalogue(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "items.jsonl", [{"item_id": "a", "title": "x"}])


def write_clicks(path: Path, bad: bytes) -> int:
    """A file of good clicks with a bad one among them; returns its line number."""
    good = LINES[path.suffix]
    path.write_bytes(HEADERS[path.suffix] + b"\n".join([*[good] * BAD_PLACE, bad, *[good] * (GOOD - BAD_PLACE)]) + b"\n")
    return BAD_PLACE + 1 + HEADERS[path.suffix].count(b"\n")


@pytest.mark.parametrize(("suffix", "kind", "bad"), CASES)
def test_a_bad_click_is_counted_quoted_and_skipped(tmp_path: Path, suffix: str, kind: BadRow, bad: bytes) -> None:
    path = tmp_path / f"clicks{suffix}"
    line = write_clicks(path, bad)
    raw = read(tmp_path, Sources(path, catalogue(tmp_path)), chunk_bytes=2**16)
    assert sessions_of(raw) == [["a"] * GOOD]
    account = raw.facts["files"]["sessions"]
    assert account["bad"] == {kind: 1}
    assert account["rows"] == GOOD + 1
    assert account["first"][0].startswith(f"{path}:{line}: {kind}")
    assert all(character.isprintable() for character in account["first"][0])


@pytest.mark.parametrize(
    ("suffix", "kind", "bad"), [(suffix, kind, bad) for suffix, kind, bad in CASES if suffix == ".jsonl"][::3]
)
def test_a_bad_click_is_fatal_where_the_user_says_so(tmp_path: Path, suffix: str, kind: BadRow, bad: bytes) -> None:
    path = tmp_path / f"clicks{suffix}"
    line = write_clicks(path, bad)
    with pytest.raises(InputError, match=rf"clicks{suffix}:{line}: {kind}"):
        read(tmp_path, Sources(path, catalogue(tmp_path)), bad_rows="fail")


PARQUET_CLICKS: dict[BadRow, dict[str, pa.Array]] = {
    BadRow.MISSING_ID: {"item_id": pa.array(["a", None, "a"])},
    BadRow.UNKNOWN_ITEM: {"item_id": pa.array(["a", "zzz", "a"])},
    BadRow.WRONG_TYPE: {"timestamp": pa.array(["1", "soon", "2"])},
    BadRow.NOT_A_NUMBER: {"timestamp": pa.array([1.0, float("nan"), 2.0])},
    BadRow.NUL: {"item_id": pa.array(["a", "a\0", "a"])},
    BadRow.INVALID_UTF8: {"item_id": pa.array([b"a", b"\xff", b"a"])},
}


@pytest.mark.parametrize("kind", PARQUET_CLICKS)
def test_a_bad_row_of_a_parquet_file_is_quoted_by_its_number(tmp_path: Path, kind: BadRow) -> None:
    columns = {"session_id": pa.array(["s"] * 3), "item_id": pa.array(["a"] * 3), "timestamp": pa.array([1.0, 2.0, 3.0])}
    path = tmp_path / "clicks.parquet"
    pq.write_table(pa.table(columns | PARQUET_CLICKS[kind]), path)
    raw = read(tmp_path, Sources(path, catalogue(tmp_path)), max_bad_share=0.5)
    assert sessions_of(raw) == [["a", "a"]]
    account = raw.facts["files"]["sessions"]
    assert account["bad"] == {kind: 1}
    assert account["first"][0].startswith(f"{path}:2: {kind}")


def test_text_that_is_not_utf8_in_a_parquet_string_column_is_found(tmp_path: Path) -> None:
    broken = pa.Array.from_buffers(pa.string(), 2, pa.array([b"a", b"\xff\xfe"]).buffers())
    path = tmp_path / "items.parquet"
    pq.write_table(pa.table({"item_id": pa.array(["a", "b"]), "title": broken}), path)
    sessions = write_rows(tmp_path / "sessions.jsonl", [{"items": ["a"]}])
    raw = read(tmp_path, Sources(sessions, path), max_bad_share=0.5)
    assert raw.facts["files"]["items"]["bad"] == {BadRow.INVALID_UTF8: 1}
    assert [item.item_id for item in items_of(raw)] == ["a"]


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("chunk", [64, 2**20])
def test_the_first_of_two_items_with_one_id_wins(tmp_path: Path, suffix: str, chunk: int) -> None:
    rows = [{"item_id": one, "title": f"title {place}"} for place, one in enumerate(["a", "b", "a", "c", "b", "a"])]
    sessions = write_rows(tmp_path / "sessions.jsonl", [{"items": ["a", "b", "c"]}])
    raw = read(
        tmp_path, Sources(sessions, write_rows(tmp_path / f"items.{suffix}", rows)), max_bad_share=0.9, chunk_bytes=chunk
    )
    assert [(item.item_id, item.title) for item in items_of(raw)] == [("a", "title 0"), ("b", "title 1"), ("c", "title 3")]
    account = raw.facts["files"]["items"]
    assert account["bad"] == {BadRow.DUPLICATE_ID: 3}
    first_line = 4 if suffix == "csv" else 3
    assert account["first"][0].startswith(f"{tmp_path / f'items.{suffix}'}:{first_line}: duplicate id")
    assert sessions_of(raw) == [["a", "b", "c"]]


def test_a_session_id_that_comes_again_is_a_bad_row(tmp_path: Path) -> None:
    rows = [{"session_id": "1", "items": ["a"]}, {"session_id": "2", "items": ["b"]}, {"session_id": "1", "items": ["c"]}]
    raw = read(tmp_path, Sources(write_rows(tmp_path / "sessions.jsonl", rows)), max_bad_share=0.5)
    assert sessions_of(raw) == [["a"], ["b"]]
    assert raw.facts["files"]["sessions"]["bad"] == {BadRow.DUPLICATE_ID: 1}


def test_only_the_click_on_an_unknown_item_leaves_a_session(tmp_path: Path) -> None:
    sessions = write_rows(tmp_path / "sessions.jsonl", [{"items": ["a", "x", "a"]}, {"items": ["y"]}, {"items": ["a"] * 20}])
    raw = read(tmp_path, Sources(sessions, catalogue(tmp_path)))
    assert sessions_of(raw) == [["a", "a"], ["a"] * 20]
    account = raw.facts["files"]["sessions"]
    assert account["bad"] == {BadRow.UNKNOWN_ITEM: 2}
    assert account["clicks"] == 24


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"items": []}, BadRow.EMPTY_SESSION),
        ({"items": None}, BadRow.EMPTY_SESSION),
        ({"items": "a"}, BadRow.WRONG_TYPE),
        ({"items": ["a", None]}, BadRow.MISSING_ID),
        ({"items": ["a", {"id": 1}]}, BadRow.WRONG_TYPE),
        ({"items": ["a"], "timestamps": [1, 2]}, BadRow.WRONG_TYPE),
        ({"items": ["a"], "timestamps": None}, BadRow.WRONG_TYPE),
        ({"items": ["a"], "timestamps": [float("nan")]}, BadRow.NOT_A_NUMBER),
    ],
)
def test_a_bad_session_row_is_left_out(tmp_path: Path, row: dict[str, Any], kind: BadRow) -> None:
    good = {"items": ["a", "a"], "timestamps": [1, 2]}
    raw = read(tmp_path, Sources(write_rows(tmp_path / "sessions.jsonl", [good, row, good])), max_bad_share=0.5)
    assert sessions_of(raw) == [["a", "a"]] * 2
    assert raw.facts["files"]["sessions"]["bad"] == {kind: 1}


def test_examples_with_an_unknown_target_or_without_a_known_prefix_are_left_out(tmp_path: Path) -> None:
    sessions = write_rows(tmp_path / "sessions.jsonl", [{"items": ["a"] * 30}])
    rows = [
        {"items": ["a"], "target": "zzz"},
        {"items": ["zzz"], "target": "a"},
        *[{"items": ["a", "a"], "target": "a"}] * 20,
    ]
    raw = read(tmp_path, Sources(sessions, catalogue(tmp_path), write_rows(tmp_path / "test.jsonl", rows)))
    assert raw.test_lengths.tolist() == [2] * 20
    assert raw.facts["files"]["test"]["bad"] == {BadRow.UNKNOWN_ITEM: 2, BadRow.EMPTY_SESSION: 1}


def test_too_many_bad_rows_are_fatal_and_named(tmp_path: Path) -> None:
    path = tmp_path / "sessions.jsonl"
    path.write_text('{"items": ["a"]}\n' * 8 + "broken\n" * 2)
    with pytest.raises(InputError, match=r"(?s)20\.0% of .*sessions\.jsonl cannot be used \(broken row: 2\).*:9: broken row"):
        read(tmp_path, Sources(path))
    assert len(sessions_of(read(tmp_path, Sources(path), max_bad_share=0.2))) == 8


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_an_empty_file_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "sessions.jsonl").write_text(text)
    with pytest.raises(InputError):
        read(tmp_path, Sources(tmp_path / "sessions.jsonl"))
    (tmp_path / "sessions.csv").write_text(text)
    with pytest.raises(InputError):
        read(tmp_path, Sources(tmp_path / "sessions.csv"))


def test_a_file_with_a_header_alone_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "sessions.csv").write_text("session_id,item_id\n")
    with pytest.raises(InputError, match="holds no rows"):
        read(tmp_path, Sources(tmp_path / "sessions.csv"))


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-20], lambda data: data[:40] + b"\0\0\0" + data[43:], lambda _: b"not gzip"]
)
def test_a_damaged_gzip_file_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "sessions.jsonl.gz"
    path.write_bytes(damage(gzip.compress(b"".join(b'{"items": ["%d"]}\n' % number for number in range(5000)))))
    with pytest.raises(InputError, match=r"sessions\.jsonl\.gz is damaged"):
        read(tmp_path, Sources(path))


def test_a_parquet_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "sessions.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(InputError, match="no readable Parquet file"):
        read(tmp_path, Sources(tmp_path / "sessions.parquet"))


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmgr_core.data.readers.byte_chunks.LONGEST_LINE", 1000)
    path = tmp_path / "sessions.jsonl"
    path.write_bytes(b'{"items": ["a"]}\n' * 20 + b"x" * 3000 + b'\n{"items": ["b"]}\n')
    raw = read(tmp_path, Sources(path), chunk_bytes=64, max_bad_share=0.9)
    assert sessions_of(raw) == [["a"]] * 20 + [["b"]]
    account = raw.facts["files"]["sessions"]
    assert list(account["bad"]) == [BadRow.BROKEN_ROW]
    assert ":21: broken row" in account["first"][0]


def test_good_rows_never_become_python_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a row was looked at singly")

    monkeypatch.setattr("llmgr_core.data.readers.batches._read_rows", refuse)
    items = [{"item_id": str(n), "title": f"t {n}", "brand": None, "category": [["a", "b"]]} for n in range(50)]
    clicks = [{"session_id": f"s{n}", "item_id": str(n), "timestamp": n} for n in range(50)]
    lists = [{"session_id": str(n), "items": [str(n)] * 3} for n in range(50)]
    for suffix in ("jsonl", "csv", "parquet"):
        catalogue_file = write_rows(tmp_path / f"items.{suffix}", items)
        read(tmp_path, Sources(write_rows(tmp_path / f"clicks.{suffix}", clicks), catalogue_file))
        read(tmp_path, Sources(write_rows(tmp_path / f"sessions.{suffix}", lists), catalogue_file))


def test_only_the_first_rows_of_a_kind_are_quoted() -> None:
    account = BadRows(Path("f"))
    for number in range(10):
        account.add(BadRow.NUL, number, "text")
    account.count(BadRow.NUL, 5)
    assert account.counts[BadRow.NUL] == 15
    assert len(account.summary()["first"]) == 3
    account.add(BadRow.BROKEN_ROW, 1, "x" * 10_000)
    assert len(account.summary()["first"][-1]) < 300
