"""The official Amazon files become the project's format, line by line, whatever stands in them."""

from __future__ import annotations

import gzip
import http.server
import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from llmgr_core.downloads import datasets
from llmgr_core.downloads.amazon_raw import convert_amazon
from llmgr_core.downloads.datasets import AmazonSource, fetch_data
from llmgr_core.errors import InputError
from llmgr_core.progress import Reporter

REVIEWS = [
    {"reviewerID": "anna", "asin": "B1", "unixReviewTime": 300, "reviewText": "good"},
    {"reviewerID": "anna", "asin": "B2", "unixReviewTime": 100},
    {"reviewerID": "bert", "asin": "B1", "unixReviewTime": 100},
    {"reviewerID": "anna", "asin": "B3", "unixReviewTime": 100},
    {"reviewerID": "anna", "asin": "B2", "unixReviewTime": 400},
]
META_2014 = [
    repr(
        {
            "asin": "B1",
            "title": 'Bob\'s "red" lacquer',
            "brand": "OPI",
            "categories": [["Beauty", "Nails"], ["Gifts"]],
            "price": 1.5,
        }
    ),
    repr({"asin": "B2", "description": "Smells of <b>rose</b>", "salesRank": {"Beauty": 5}, "categories": [["Beauty"]]}),
    repr({"asin": "other", "title": "never reviewed"}),
]


def write(path: Path, lines: list[str | bytes]) -> Path:
    with gzip.open(path, "wb") as stream:
        for line in lines:
            stream.write((line if isinstance(line, bytes) else line.encode()) + b"\n")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path) as stream:
        return [json.loads(line) for line in stream]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A directory with the official files of amazon-beauty in little."""
    directory = tmp_path / "raw"
    directory.mkdir()
    write(directory / "reviews_Beauty_5.json.gz", [json.dumps(review) for review in REVIEWS])
    write(directory / "meta_Beauty.json.gz", list(META_2014))
    return directory


def test_reviews_become_sessions_by_time_and_python_literals_become_items(raw: Path, tmp_path: Path) -> None:
    report = convert_amazon(raw / "reviews_Beauty_5.json.gz", raw / "meta_Beauty.json.gz", tmp_path)
    assert read(tmp_path / "sessions.jsonl.gz") == [
        {"session_id": "0", "items": ["B2", "B3", "B1"], "timestamps": [100, 100, 300]},
        {"session_id": "1", "items": ["B1"], "timestamps": [100]},
    ]
    assert read(tmp_path / "items.jsonl.gz") == [
        {
            "item_id": "B1",
            "title": 'Bob\'s "red" lacquer',
            "description": None,
            "brand": "OPI",
            "category": [["Beauty", "Nails"], ["Gifts"]],
        },
        {"item_id": "B2", "title": None, "description": "Smells of <b>rose</b>", "brand": None, "category": [["Beauty"]]},
        {"item_id": "B3", "title": None, "description": None, "brand": None, "category": []},
    ]
    assert (report.reviews, report.items, report.sessions, report.repeats, report.bad_lines) == (4, 2, 2, 1, 0)


def test_the_files_of_2018_hold_lists_and_one_path(tmp_path: Path) -> None:
    reviews = write(tmp_path / "r.gz", [json.dumps(REVIEWS[0])])
    record = {
        "asin": "B1",
        "title": "Relay",
        "description": ["One.", ""],
        "feature": ["Steel"],
        "category": ["Industrial", "Relays"],
    }
    convert_amazon(reviews, write(tmp_path / "m.gz", [json.dumps(record)]), tmp_path)
    item = read(tmp_path / "items.jsonl.gz")[0]
    assert item["description"] == "One. Steel"
    assert item["category"] == [["Industrial", "Relays"]]


NO_REVIEWS = [b"{broken", b"[1, 2]", b"__import__('os').system('true')", b"\xff\xfe", b"(" * 5000, b'{"asin": "B1"}']
NO_REVIEWS += [b'{"reviewerID": 1, "asin": 2}', b"null", b'{"reviewerID": "a", "asin": "B1", "unixReviewTime": "300"}']


@pytest.mark.parametrize("line", NO_REVIEWS)
def test_a_line_that_is_no_review_is_counted_quoted_and_skipped(line: bytes, raw: Path, tmp_path: Path) -> None:
    reviews = write(tmp_path / "reviews.gz", [json.dumps(REVIEWS[0]), line, json.dumps(REVIEWS[1])])
    report = convert_amazon(reviews, raw / "meta_Beauty.json.gz", tmp_path)
    assert (report.reviews, report.bad_lines) == (2, 1)
    assert report.first_bad[0].startswith("reviews.gz:2: ")


@pytest.mark.parametrize("meta", [b"__import__('os').abort()", b"{'asin': 'B1', 'title': open('/etc/passwd').read()}"])
def test_a_meta_line_is_never_run(meta: bytes, raw: Path, tmp_path: Path) -> None:
    report = convert_amazon(raw / "reviews_Beauty_5.json.gz", write(tmp_path / "m.gz", [meta]), tmp_path)
    assert (report.items, report.bad_lines) == (0, 1)


def test_a_file_that_was_cut_off_is_an_error(raw: Path, tmp_path: Path) -> None:
    path = raw / "meta_Beauty.json.gz"
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(InputError, match=r"meta_Beauty\.json\.gz is damaged"):
        convert_amazon(raw / "reviews_Beauty_5.json.gz", path, tmp_path)


def test_a_file_without_a_review_is_an_error(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no usable review"):
        convert_amazon(write(tmp_path / "r.gz", [b"{}"]), raw / "meta_Beauty.json.gz", tmp_path)


def test_from_takes_official_files_and_is_free_the_second_time(
    raw: Path, reporter: Reporter, own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = fetch_data("amazon-beauty", reporter, directory=raw)
    assert directory == own_home / "data" / "amazon-beauty"
    assert len(read(directory / "sessions.jsonl.gz")) == 2
    capsys.readouterr()
    fetch_data("amazon-beauty", reporter, directory=raw)
    assert '"made": false' in capsys.readouterr().err


@pytest.fixture
def server(raw: Path) -> Iterator[str]:
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(raw))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_an_official_address_is_fetched_and_converted(server: str, reporter: Reporter, monkeypatch: pytest.MonkeyPatch) -> None:
    source = AmazonSource(f"{server}/reviews_Beauty_5.json.gz", f"{server}/meta_Beauty.json.gz")
    monkeypatch.setitem(datasets.AMAZON, "amazon-beauty", source)
    directory = fetch_data("amazon-beauty", reporter)
    assert len(read(directory / "items.jsonl.gz")) == 3


@pytest.mark.parametrize("missing", ["server", "file"])
def test_an_address_out_of_reach_is_an_error_with_the_way_around(
    missing: str, server: str, reporter: Reporter, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = "http://127.0.0.1:1" if missing == "server" else f"{server}/no-such-place"
    monkeypatch.setitem(datasets.AMAZON, "amazon-beauty", AmazonSource(f"{base}/r.json.gz", f"{base}/m.json.gz"))
    with pytest.raises(InputError) as caught:
        fetch_data("amazon-beauty", reporter)
    assert f"{base}/r.json.gz cannot be fetched" in str(caught.value)
    assert "llmgr data amazon-beauty --from DIR" in str(caught.value)
    assert [path.name for path in (own_home / "data").iterdir()] == [".amazon-beauty.lock"]
