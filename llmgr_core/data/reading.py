"""Reading input files into a RawInput directory."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from llmgr_core.data.item_table import item_schema
from llmgr_core.data.raw_input import RawInput
from llmgr_core.data.sources import Sources
from llmgr_core.settings.data import DataSettings


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
        for line in stream:
            yield orjson.loads(line)


def read_input(sources: Sources, settings: DataSettings, path: Path) -> RawInput:
    """Interim: JSON lines only, every line good."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.mkdir(parents=True, exist_ok=True)
    index: dict[str, int] = {}
    records = []
    if sources.items:
        for row in _lines(sources.items):
            index[str(row["item_id"])] = len(index)
            records.append(
                {
                    "item_id": str(row["item_id"]),
                    "title": row.get("title"),
                    "description": row.get("description"),
                    "brand": row.get("brand"),
                    "categories": row.get("category") or [],
                    "attributes": [],
                }
            )
    owners, items = [], []
    for number, row in enumerate(_lines(sources.sessions)):
        for item in row["items"]:
            code = index.setdefault(str(item), len(index)) if not sources.items else index.get(str(item), -1)
            if code >= 0:
                owners.append(number)
                items.append(code)
    test_items, test_lengths, test_targets = [], [], []
    if sources.test:
        for row in _lines(sources.test):
            test_items += [index.setdefault(str(item), len(index)) for item in row["items"]]
            test_targets.append(index.setdefault(str(row["target"]), len(index)))
            test_lengths.append(len(row["items"]))
    if not sources.items:
        records = [
            {"item_id": key, "title": None, "description": None, "brand": None, "categories": [], "attributes": []}
            for key in index
        ]
    pq.write_table(pa.Table.from_pylist(records, schema=item_schema()), path / "catalogue.parquet")
    for name, values, kind in (
        ("owners", owners, np.int32),
        ("items", items, np.int32),
        ("test_items", test_items, np.int32),
        ("test_lengths", test_lengths, np.int64),
        ("test_targets", test_targets, np.int32),
    ):
        np.array(values, dtype=kind).tofile(path / f"{name}.bin")
    facts = {
        "has_times": False,
        "has_test": sources.test is not None,
        "has_texts": sources.items is not None,
        "num_items": len(index),
    }
    (path / "facts.json").write_text(json.dumps(facts))
    return RawInput(path)
