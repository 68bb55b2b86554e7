"""Cleaning the texts of a whole catalogue."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from llmgr_core.data.item import Item
from llmgr_core.data.item_table import item_from_row
from llmgr_core.settings.text import TextSettings


def read_items(catalogue: Path, batch_rows: int = 4096) -> Iterator[list[Item]]:
    """Items of a catalogue file, some thousands at a time."""
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(catalogue).iter_batches(batch_size=batch_rows):
        yield [item_from_row(row) for row in batch.to_pylist()]


def clean_texts(directory: Path, settings: TextSettings) -> None:
    """Fit the cleaner on ``items.parquet`` and write ``texts.parquet`` and ``text_cleaner.json``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    state: dict[str, object] = {}
    catalogue = directory / "items.parquet"
    with pq.ParquetWriter(directory / "texts.parquet", pa.schema([("text", pa.string())]), compression="zstd") as writer:
        for items in read_items(catalogue):
            # interim, until llmgr_core.text is there
            texts = [". ".join(part for part in (item.brand, item.title, item.description) if part) or None for item in items]
            writer.write_table(pa.table({"text": pa.array(texts, pa.string())}))
    (directory / "text_cleaner.json").write_text(json.dumps(state), encoding="utf-8")
