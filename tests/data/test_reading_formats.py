"""The same data comes out of every format, whatever the size of the pieces it is read in."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from input_files import SUFFIXES, items_of, read, sessions_of, write_recbole, write_rows

from llmgr_core.data.item import Item
from llmgr_core.data.sources import Sources
from llmgr_core.errors import InputError

letters = st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=("Cs", "Cc"))
ids = st.text(st.characters(categories=("L", "N"), include_characters="-_"), min_size=1, max_size=5).filter(
    lambda text: text not in ("nan", "NaN", "null", "NULL")
)
words = st.text(letters, max_size=12).map(str.strip).filter(lambda text: text not in ("nan", "NaN", "null", "NULL"))


@st.composite
def catalogues(draw: st.DrawFn) -> list[dict[str, Any]]:
    chosen = draw(st.lists(ids, min_size=1, max_size=8, unique=True))
    return [
        {
            "item_id": one,
            "title": draw(words) or None,
            "description": draw(words.map(lambda text: text + '\n"quoted", yes')) if draw(st.booleans()) else None,
            "brand": draw(words) or None,
            "category": draw(st.lists(st.lists(ids, min_size=1, max_size=3), max_size=2)),
        }
        for one in chosen
    ]


def item_of(row: dict[str, Any]) -> Item:
    return Item(row["item_id"], row["title"], row["description"], row["brand"], tuple(tuple(path) for path in row["category"]))


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=20, deadline=None)
@given(data=st.data(), rows=catalogues(), chunk=st.sampled_from([64, 300, 2**20]))
def test_catalogue_and_sessions_survive_the_round_trip(
    suffix: str, data: st.DataObject, rows: list[dict[str, Any]], chunk: int
) -> None:
    known = [row["item_id"] for row in rows]
    lists = data.draw(st.lists(st.lists(st.sampled_from(known), min_size=1, max_size=6), min_size=1, max_size=6))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch)
        items = write_rows(path / f"items.{suffix}", rows)
        sessions = write_rows(
            path / f"sessions.{suffix}", [{"session_id": str(n), "items": one} for n, one in enumerate(lists)]
        )
        raw = read(path, Sources(sessions, items), chunk_bytes=chunk)
        assert items_of(raw) == [item_of(row) for row in rows]
        assert sessions_of(raw) == lists
        assert not any(account["bad"] for account in raw.facts["files"].values())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_single_clicks_are_grouped_and_keep_their_times(tmp_path: Path, suffix: str) -> None:
    rows = [("b", "x", 5), ("a", "y", 2), ("b", "z", 1), ("a", "x", 9), ("c", "x", 4)]
    clicks = write_rows(
        tmp_path / f"clicks.{suffix}", [{"user_id": user, "item_id": item, "timestamp": time} for user, item, time in rows]
    )
    raw = read(tmp_path, Sources(clicks), chunk_bytes=64)
    assert sessions_of(raw) == [["x", "z"], ["y", "x"], ["x"]]
    assert raw.times is not None
    assert raw.times.tolist() == [5, 2, 1, 9, 4]
    assert [item.item_id for item in items_of(raw)] == ["x", "y", "z"]


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_whole_numbers_are_ids_too(tmp_path: Path, suffix: str) -> None:
    items = write_rows(tmp_path / f"items.{suffix}", [{"item_id": number, "title": 1984} for number in (3, 10)])
    sessions = write_rows(tmp_path / f"sessions.{suffix}", [{"session_id": 7, "items": [10, 3, 10]}])
    raw = read(tmp_path, Sources(sessions, items))
    assert sessions_of(raw) == [["10", "3", "10"]]
    assert items_of(raw)[1] == Item("10", "1984")


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "parquet"])
def test_a_test_file_holds_prefixes_and_targets(tmp_path: Path, suffix: str) -> None:
    sessions = write_rows(tmp_path / f"sessions.{suffix}", [{"session_id": "1", "items": ["a", "b"]}])
    test = write_rows(tmp_path / f"test.{suffix}", [{"items": ["a", "b"], "target": "c"}, {"items": ["c"], "target": "a"}])
    raw = read(tmp_path, Sources(sessions, None, test))
    names = [item.item_id for item in items_of(raw)]
    assert [names[item] for item in raw.test_items] == ["a", "b", "c"]
    assert raw.test_lengths.tolist() == [2, 1]
    assert [names[item] for item in raw.test_targets] == ["c", "a"]


def test_recbole_atomic_files_are_read_by_their_typed_headers(tmp_path: Path) -> None:
    items = write_recbole(
        tmp_path / "ml.item",
        {"item_id": "token", "movie_title": "token_seq", "class": "token_seq"},
        [["1", 'Toy "Story', "Animation Comedy"], ["2", "Heat", ""]],
    )
    clicks = write_recbole(
        tmp_path / "ml.inter",
        {"user_id": "token", "item_id": "token", "rating": "float", "timestamp": "float"},
        [["u", "2", "5", "9.5"], ["u", "1", "3", "7.0"]],
    )
    raw = read(tmp_path, Sources.of_directory(tmp_path), fields={"title": "movie_title", "categories": "class"})
    assert items_of(raw) == [Item("1", 'Toy "Story', categories=(("Animation Comedy",),)), Item("2", "Heat")]
    assert sessions_of(raw) == [["2", "1"]]
    assert raw.times is not None
    assert raw.times.tolist() == [9.5, 7.0]
    assert Sources.of_directory(tmp_path) == Sources(clicks, items)


def test_recbole_session_files_serve_as_test_files(tmp_path: Path) -> None:
    sessions = write_rows(tmp_path / "sessions.jsonl", [{"items": ["1", "2", "3"]}])
    test = write_recbole(
        tmp_path / "d.test.inter",
        {"session_id": "token", "item_id_list": "token_seq", "item_id": "token"},
        [["s", "1 2", "3"], ["t", "3", "1"]],
    )
    raw = read(tmp_path, Sources(sessions, None, test))
    assert raw.test_lengths.tolist() == [2, 1]
    assert raw.test_targets.tolist() == [2, 0]


def test_a_recbole_header_without_types_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ml.inter"
    path.write_text("user_id\titem_id\n1\t2\n")
    with pytest.raises(InputError, match="'user_id' has no RecBole type"):
        read(tmp_path, Sources(path))


@pytest.mark.parametrize(
    ("category", "paths"),
    [
        ("Beauty > Hair > Combs", (("Beauty", "Hair", "Combs"),)),
        ("Beauty|Hair", (("Beauty", "Hair"),)),
        ("['Beauty', 'Hair']", (("Beauty", "Hair"),)),
        ('[["Beauty", "Hair"], ["Gifts"]]', (("Beauty", "Hair"), ("Gifts",))),
        ("[not a list]", (("[not a list]",),)),
        (["Beauty", "Hair"], (("Beauty", "Hair"),)),
        ([["Beauty", "", None], []], (("Beauty",),)),
        ([], ()),
        (None, ()),
        ("NaN", ()),
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_categories_come_in_many_spellings(
    tmp_path: Path, suffix: str, category: Any, paths: tuple[tuple[str, ...], ...]
) -> None:
    sessions = write_rows(tmp_path / "sessions.jsonl", [{"items": ["1"]}])
    items = write_rows(tmp_path / f"items.{suffix}", [{"item_id": "1", "title": "x", "category": category}])
    assert items_of(read(tmp_path, Sources(sessions, items)))[0].categories == paths


def test_attributes_are_kept_by_name_whatever_their_type(tmp_path: Path) -> None:
    rows = [
        {"item_id": "1", "attributes": {"size": 3, "colour": "red", "new": True, "empty": "", "none": None}},
        {"item_id": "2", "attributes": {"weight": 1.5, "tags": ["a", "b"], "nested": {"x": 1}}},
        {"item_id": "3"},
    ]
    sessions = write_rows(tmp_path / "sessions.jsonl", [{"items": ["1"]}])
    items = write_rows(tmp_path / "items.jsonl", rows)
    found = [dict(item.attributes) for item in items_of(read(tmp_path, Sources(sessions, items)))]
    assert found == [
        {"colour": "red", "new": "true", "size": "3"},
        {"nested": '{"x": 1}', "tags": "a, b", "weight": "1.5"},
        {},
    ]
    assert list(found[0]) == sorted(found[0])


def test_parquet_maps_and_dictionary_columns_are_read(tmp_path: Path) -> None:
    table = pa.table(
        {
            "item_id": pa.array(["1", "2"]).dictionary_encode(),
            "title": pa.array(["x", None], pa.large_string()),
            "attributes": pa.array([[("b", "2"), ("a", "1")], None], pa.map_(pa.string(), pa.string())),
        }
    )
    pq.write_table(table, tmp_path / "items.parquet")
    sessions = write_rows(tmp_path / "sessions.jsonl", [{"items": ["1"]}])
    assert items_of(read(tmp_path, Sources(sessions, tmp_path / "items.parquet"))) == [
        Item("1", "x", attributes={"a": "1", "b": "2"}),
        Item("2"),
    ]


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        ([1, 2.5], [1.0, 2.5]),
        (["1", "2.5"], [1.0, 2.5]),
        (["1970-01-01T00:01:00", "1970-01-02"], [60.0, 86400.0]),
        (["1970-01-01T01:00:00+01:00", "1970-01-01 00:00:01Z"], [0.0, 1.0]),
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_timestamps_are_numbers_or_iso_8601(tmp_path: Path, suffix: str, values: list[Any], seconds: list[float]) -> None:
    clicks = write_rows(
        tmp_path / f"clicks.{suffix}", [{"session_id": "s", "item_id": "x", "timestamp": value} for value in values]
    )
    raw = read(tmp_path, Sources(clicks))
    assert raw.times is not None
    assert raw.times.tolist() == seconds


def test_parquet_timestamps_are_seconds(tmp_path: Path) -> None:
    for unit in ("s", "ms", "us", "ns"):
        times = pa.array([1_500_000, 2_000_000], pa.int64()).cast(pa.timestamp("us")).cast(pa.timestamp(unit), safe=False)
        table = pa.table({"session_id": ["s", "s"], "item_id": ["x", "y"], "timestamp": times})
        pq.write_table(table, tmp_path / "clicks.parquet")
        raw = read(tmp_path, Sources(tmp_path / "clicks.parquet"))
        assert raw.times is not None
        assert raw.times.tolist() == ([1.0, 2.0] if unit == "s" else [1.5, 2.0])


@pytest.mark.parametrize("text", ["a;b;c", "a|b|c", "a b c", '"a,b,c"', "\"['a', 'b', 'c']\"", '"[""a"", ""b"", ""c""]"'])
def test_lists_in_csv_are_parted_by_what_the_file_uses(tmp_path: Path, text: str) -> None:
    (tmp_path / "sessions.csv").write_text(f"session_id,items\n1,{text}\n2,{text}\n")
    assert sessions_of(read(tmp_path, Sources(tmp_path / "sessions.csv"))) == [["a", "b", "c"]] * 2


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_byte_order_mark_line_ends_and_a_missing_last_one_make_no_difference(tmp_path: Path, ending: str, mark: str) -> None:
    (tmp_path / "clicks.csv").write_bytes((mark + ending.join(["session_id,item_id", "1,a", "", "1,b"])).encode())
    (tmp_path / "sessions.jsonl").write_bytes((mark + ending.join(['{"items":["a"]}', "", '{"items":["b"]}'])).encode())
    assert sessions_of(read(tmp_path, Sources(tmp_path / "clicks.csv"))) == [["a", "b"]]
    assert sessions_of(read(tmp_path, Sources(tmp_path / "sessions.jsonl"))) == [["a"], ["b"]]


def test_own_column_names_come_first_and_missing_ones_are_named(tmp_path: Path) -> None:
    clicks = write_rows(tmp_path / "clicks.csv", [{"visitor": "v", "sku": "a", "item_id": "wrong"}])
    with pytest.raises(InputError, match=r"no column session_id or user_id; it has visitor, sku, item_id"):
        read(tmp_path, Sources(clicks))
    raw = read(tmp_path, Sources(clicks), fields={"session_id": "visitor", "item_id": "sku"})
    assert sessions_of(raw) == [["a"]]


def test_a_field_that_first_appears_late_in_a_json_file_is_read(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"item_id": str(number), "title": "t"} for number in range(1000)]
    rows += [{"item_id": "late", "title": "t", "description": "d", "brand": "b", "attributes": {"k": "v"}}]
    sessions = write_rows(tmp_path / "sessions.jsonl", [{"items": ["late"]}])
    items = write_rows(tmp_path / "items.jsonl", rows)
    assert items_of(read(tmp_path, Sources(sessions, items)))[-1] == Item("late", "t", "d", "b", attributes={"k": "v"})


def test_quoted_fields_over_several_lines_are_one_row_and_stray_quotes_are_text(tmp_path: Path) -> None:
    text = 'item_id,title,description\n1,12" pan,"one\ntwo, ""three""\n"\n2,5" lid,plain\n3,"a, b",c\n'
    (tmp_path / "items.csv").write_text(text)
    sessions = write_rows(tmp_path / "sessions.jsonl", [{"items": ["1"]}])
    for chunk in (64, 2**20):
        raw = read(tmp_path, Sources(sessions, tmp_path / "items.csv"), chunk_bytes=chunk)
        assert items_of(raw) == [
            Item("1", '12" pan', 'one\ntwo, "three"\n'),
            Item("2", '5" lid', "plain"),
            Item("3", "a, b", "c"),
        ]


def sources_in(directory: Path) -> Iterator[str]:
    found = Sources.of_directory(directory)
    return (path.name for path in found.files.values())


def test_a_directory_is_recognised_by_the_names_of_its_files(tmp_path: Path) -> None:
    for name in ("items.jsonl.gz", "train_sessions.jsonl.gz", "test.jsonl.gz", "SOURCE.md"):
        (tmp_path / name).write_bytes(b"")
    assert list(sources_in(tmp_path)) == ["items.jsonl.gz", "train_sessions.jsonl.gz", "test.jsonl.gz"]
    (tmp_path / "sessions.csv").write_bytes(b"")
    with pytest.raises(InputError, match=r"which of sessions\.csv, train_sessions\.jsonl\.gz is meant"):
        sources_in(tmp_path)


@pytest.mark.parametrize("name", ["sessions.xlsx", "sessions", "sessions.gz"])
def test_an_unknown_ending_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=f"{name} is of no format"):
        Sources.of_files(None, tmp_path / name, None)
