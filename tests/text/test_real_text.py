"""The cleaner at work on real catalogues."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path

import pytest

from llmgr_core.data.item import Item
from llmgr_core.text import TextCleaner
from llmgr_core.text.sentences import count_tokens, split_sentences

pytestmark = pytest.mark.real_data


def read_items(directory: Path) -> list[Item]:
    with gzip.open(directory / "items.jsonl.gz") as stream:
        rows = [json.loads(line) for line in stream]
    return [
        Item(
            row["item_id"], row["title"], row["description"], row["brand"], tuple(tuple(path) for path in row["category"] or [])
        )
        for row in rows
    ]


@pytest.fixture(scope="module")
def scientific(real_data: Path) -> list[Item]:
    return read_items(real_data / "amazon-scientific")


@pytest.fixture(scope="module")
def fitted(scientific: list[Item]) -> TextCleaner:
    return TextCleaner().fit(scientific)


def test_every_real_text_is_readable_and_idempotent(scientific: list[Item], fitted: TextCleaner) -> None:
    for item in scientific:
        text = fitted.clean(item)
        assert text is not None, item
        assert fitted.clean(Item("again", title=text)) == text
        assert count_tokens(text) <= fitted.settings.max_tokens
        for remains in ("http://", "www.", "\u00a0", "  ", "\t", "Â", "Ã", "&amp;"):
            assert remains not in text, text


def test_real_marketing_sentences_are_gone(scientific: list[Item], fitted: TextCleaner) -> None:
    before = " ".join(item.description or "" for item in scientific).lower()
    after = " ".join(fitted.clean(item) or "" for item in scientific).lower()
    for sentence in ("help you stream your creative outlet", "100% brand new and high quality", "is a registered trademark"):
        # what is left stands in a sentence that says more
        assert after.count(sentence) <= before.count(sentence) / 10
    assert "pipe fittings are components used for connecting" in before
    assert "pipe fittings are components used for connecting" not in after
    assert 50 < len(fitted.repeated) < 1000


def test_sentences_of_a_real_description_are_kept_whole(scientific: list[Item], fitted: TextCleaner) -> None:
    cut = 0
    for item in scientific[:1000]:
        text = fitted.clean(item) or ""
        last = split_sentences(text)[-1]
        cut += bool(item.description) and last[-1] not in ".!?)" and last not in (item.title or "")
    assert cut < 150  # lists without a sentence end are cut at a clause


def test_cleaning_keeps_up_with_a_large_catalogue(real_data: Path, scientific: list[Item], fitted: TextCleaner) -> None:
    """Half of what was measured on a quiet core (see docs/text.md), so that a busy machine does not fail it."""
    short = read_items(real_data / "amazon-beauty")
    cleaner = TextCleaner()
    for items, clean, least in ((short, cleaner.clean, 10_000), (scientific, fitted.clean, 1_500)):
        start = time.process_time()
        for item in items:
            clean(item)
        assert len(items) / (time.process_time() - start) > least
