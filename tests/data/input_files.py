"""Writing the same catalogue and sessions in every format that is read."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from llmgr_core.data.item import Item
from llmgr_core.data.raw_input import RawInput
from llmgr_core.data.reading import read_input
from llmgr_core.data.sources import Sources
from llmgr_core.data.text_pass import read_items
from llmgr_core.progress import Reporter
from llmgr_core.settings.data import DataSettings

SUFFIXES = ("jsonl", "jsonl.gz", "csv", "csv.gz", "tsv", "parquet")


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write records in the format that the name asks for; lists become text where the format has none."""
    name = path.name.removesuffix(".gz")
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8", newline="") as stream:
        if name.endswith("jsonl"):
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        else:
            columns = list(dict.fromkeys(key for row in rows for key in row))
            writer = csv.DictWriter(stream, columns, delimiter="\t" if name.endswith("tsv") else ",", lineterminator="\n")
            writer.writeheader()
            writer.writerows({key: cell(value) for key, value in row.items()} for row in rows)
    return path


def cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        if value and isinstance(value[0], list):
            return repr(value)
        return " ".join(str(one) for one in value)
    return json.dumps(value) if isinstance(value, dict) else str(value)


def write_recbole(path: Path, header: dict[str, str], rows: list[list[str]]) -> Path:
    lines = ["\t".join(f"{name}:{kind}" for name, kind in header.items()), *("\t".join(row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


class Silent(Reporter):
    """Reports nothing: hypothesis would fill the log."""

    def event(self, name: str, **fields: Any) -> None:
        pass


def read(directory: Path, sources: Sources, **settings: Any) -> RawInput:
    return read_input(sources, DataSettings(**settings), directory / "read", Silent(as_json=True))


def items_of(raw: RawInput) -> list[Item]:
    return list(read_items(raw.catalogue))


def sessions_of(raw: RawInput) -> list[list[str]]:
    """Sessions as lists of item ids, in the order in which they were first met."""
    ids = [item.item_id for item in items_of(raw)]
    found: dict[int, list[str]] = {}
    for owner, item in zip(raw.owners.tolist(), raw.items.tolist(), strict=True):
        found.setdefault(owner, []).append(ids[item])
    return [found[owner] for owner in sorted(found)]


def write_shop(directory: Path, num_items: int = 60, num_sessions: int = 80, length: int = 8) -> Sources:
    """A small shop: item n is followed by item n + 1; one item has no text, one is never clicked."""
    directory.mkdir(parents=True, exist_ok=True)
    items: list[dict[str, Any]] = [
        {
            "item_id": f"i{number}",
            "title": None if number == 3 else f"<b>Fine</b> lamp number {number}",
            "description": None if number == 3 else f"A lamp for room {number}.",
            "brand": None if number == 3 else f"Brand {number % 4}",
            "category": [] if number == 3 else [["Home", f"Lamps {number % 3}"], ["Gifts"]],
        }
        for number in range(num_items)
    ]
    sessions = [
        {
            "session_id": str(number),
            "items": [f"i{(number * 7 + step) % (num_items - 1)}" for step in range(length)],
            "timestamps": [number * 100 + step for step in range(length)],
        }
        for number in range(num_sessions)
    ]
    return Sources(write_rows(directory / "sessions.jsonl", sessions), write_rows(directory / "items.jsonl", items))
