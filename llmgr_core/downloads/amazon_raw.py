"""Reading the official Amazon review files (J. McAuley, UCSD), 2014 and 2018, into the project's data format.

2014: ``reviews_CATEGORY_5.json.gz`` with JSON lines, ``meta_CATEGORY.json.gz`` whose lines are Python literals.
2018: ``CATEGORY_5.json.gz`` and ``meta_CATEGORY.json.gz``, both JSON lines.
"""

from __future__ import annotations

import ast
import gzip
import json
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from llmgr_core.downloads.data_format import ITEMS_NAME, SESSIONS_NAME, write_lines
from llmgr_core.errors import InputError

# A line of the official files is a few kilobytes; a longer one than this is not handed to a parser.
LONGEST_LINE = 8 << 20


@dataclass
class RawReport:
    """What was read and what could not be.

    Attributes:
        reviews, items, sessions: lines used, items with a record in the meta file, sessions written.
        repeats: reviews of an item that the same person had reviewed before; only the first counts.
        bad_lines: lines of either file that could not be read.
        first_bad: up to five of them as "file:line: reason".
    """

    reviews: int = 0
    items: int = 0
    sessions: int = 0
    repeats: int = 0
    bad_lines: int = 0
    first_bad: list[str] = field(default_factory=list)

    def bad(self, path: Path, number: int, reason: str) -> None:
        self.bad_lines += 1
        if len(self.first_bad) < 5:
            self.first_bad.append(f"{path.name}:{number}: {reason}")


def convert_amazon(reviews: Path, meta: Path, target: Path) -> RawReport:
    """Write items.jsonl.gz and sessions.jsonl.gz from the two official files, streaming both.

    A session is one person's reviews by unixReviewTime; reviews of the same day stay in the order of the file (ascending item
    id there, an artefact that published tables on these files share). People are numbered, their ids are dropped.

    Raises:
        InputError: a file is missing, damaged, or holds no usable line.
    """
    report = RawReport()
    clicks = _read_reviews(reviews, report)
    if not report.reviews:
        raise InputError(f"{reviews} holds no usable review", report.first_bad[0] if report.first_bad else None)
    write_lines(target / ITEMS_NAME, _items(meta, clicks, report))
    report.sessions = write_lines(target / SESSIONS_NAME, clicks.sessions())
    return report


@dataclass
class _Clicks:
    """Reviews in columns: person, item and time of each, with people and items as running numbers."""

    items: dict[str, int] = field(default_factory=dict)
    people: dict[str, int] = field(default_factory=dict)
    person: array[int] = field(default_factory=lambda: array("i"))
    item: array[int] = field(default_factory=lambda: array("i"))
    time: array[int] = field(default_factory=lambda: array("q"))

    def sessions(self) -> Iterator[dict[str, Any]]:
        ids = list(self.items)
        person, item, time = (np.array(column) for column in (self.person, self.item, self.time))
        # lexsort is stable: equal times keep the order of the file
        order = np.lexsort((time, person))
        ends = np.cumsum(np.bincount(person, minlength=len(self.people)))
        for number, rows in enumerate(np.split(order, ends[:-1])):
            yield {
                "session_id": str(number),
                "items": [ids[index] for index in item[rows]],
                "timestamps": time[rows].tolist(),
            }


def _read_reviews(path: Path, report: RawReport) -> _Clicks:
    clicks = _Clicks()
    seen: set[int] = set()
    for number, record in _records(path, report):
        person, item, time = record.get("reviewerID"), record.get("asin"), record.get("unixReviewTime")
        if not isinstance(person, str) or not isinstance(item, str) or not isinstance(time, int):
            report.bad(path, number, "no reviewerID, asin or unixReviewTime")
            continue
        person_number = clicks.people.setdefault(person, len(clicks.people))
        item_number = clicks.items.setdefault(item, len(clicks.items))
        pair = person_number << 32 | item_number
        if pair in seen:
            report.repeats += 1
            continue
        seen.add(pair)
        report.reviews += 1
        clicks.person.append(person_number)
        clicks.item.append(item_number)
        clicks.time.append(time)
    return clicks


def _items(path: Path, clicks: _Clicks, report: RawReport) -> Iterator[dict[str, Any]]:
    """Every reviewed item, in the order of first review; those the meta file does not hold have an id alone."""
    found: dict[str, dict[str, Any]] = {}
    for _, record in _records(path, report):
        item = record.get("asin")
        if isinstance(item, str) and item in clicks.items and item not in found:
            found[item] = _item(record)
    report.items = len(found)
    for item in clicks.items:
        nothing: dict[str, Any] = {"title": None, "description": None, "brand": None, "category": []}
        yield {"item_id": item, **found.get(item, nothing)}


def _item(record: dict[str, Any]) -> dict[str, Any]:
    description = _texts(record.get("description")) + _texts(record.get("feature"))
    paths = record.get("categories", record.get("category")) or []
    if isinstance(paths, list) and paths and all(isinstance(step, str) for step in paths):
        paths = [paths]  # 2018: one path, not a list of them
    if not isinstance(paths, list):
        paths = []
    return {
        "title": " ".join(_texts(record.get("title"))) or None,
        "description": " ".join(description) or None,
        "brand": " ".join(_texts(record.get("brand"))) or None,
        "category": [[step for step in steps if isinstance(step, str)] for steps in paths if isinstance(steps, list)],
    }


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value.strip()] if value.strip() else []
    if isinstance(value, list):
        return [text.strip() for text in value if isinstance(text, str) and text.strip()]
    return []


def _records(path: Path, report: RawReport) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    try:
        with gzip.open(path, "rb") as stream:
            while line := stream.readline(LONGEST_LINE):
                number += 1
                if not line.strip():
                    continue
                record = _parse(line) if line.endswith(b"\n") or len(line) < LONGEST_LINE else None
                if isinstance(record, dict):
                    yield number, record
                else:
                    report.bad(path, number, "neither JSON nor a Python literal")
    except FileNotFoundError:
        raise InputError(f"no file {path}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is damaged after line {number}: {error}", "fetch the file again") from None


def _parse(line: bytes) -> Any:
    """A JSON line, else a Python literal (2014's meta files); literal_eval builds constants only and runs nothing."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(line.decode("utf-8").strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
