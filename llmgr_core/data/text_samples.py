"""Item texts before and after cleaning, for a person to look at."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from llmgr_core.data.item import Item
from llmgr_core.data.reading import read_catalogue
from llmgr_core.data.text_pass import read_items
from llmgr_core.errors import InputError
from llmgr_core.progress import Reporter
from llmgr_core.settings import Settings


def text_samples(catalogue: Path | None, settings: Settings, count: int, reporter: Reporter) -> Iterator[str]:
    """Samples spread evenly over the catalogue; the cleaner is fitted on all of it.

    Args:
        catalogue: the item file.
        settings: sections [data] and [text].
        count: how many.
        reporter: progress.

    Raises:
        InputError: no item file, or one that cannot be read.
    """
    from llmgr_core.text import TextCleaner

    if catalogue is None:
        raise InputError("there is no item file, so there is no text to show", "name it with --items")
    with tempfile.TemporaryDirectory() as scratch:
        table = Path(scratch) / "catalogue.parquet"
        total = read_catalogue(catalogue, settings.data, table, reporter)
        cleaner = TextCleaner(settings.text).knowing(lambda: read_items(table)).fit(read_items(table))
        step = max(total // count, 1)
        for number, item in enumerate(read_items(table)):
            if number % step == 0 and number // step < count:
                yield f"{item.item_id}\n  before: {_original(item)}\n  after:  {cleaner.clean(item) or '(no text)'}\n"


def _original(item: Item) -> str:
    paths = [" > ".join(path) for path in item.categories]
    facts = [f"{name}: {value}" for name, value in item.attributes.items()]
    return " | ".join(part for part in (item.title, item.brand, *paths, *facts, item.description) if part) or "(no text)"
