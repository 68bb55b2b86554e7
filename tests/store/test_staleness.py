"""Vectors that are old enough are made anew, by the clock or by the models that came since; younger ones stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llmgr_core.data.item import Item
from llmgr_core.errors import InputError
from llmgr_core.progress import Reporter
from llmgr_core.store import EmbeddingStore, StoreWriter
from llmgr_core.store.catalogue import CatalogueEmbedding, CatalogueReport
from llmgr_core.store.item_encoder import ItemEncoder
from llmgr_core.store.item_record import encode_item
from llmgr_core.store.staleness import StaleAfter, Staleness

FIRST, SECOND, THIRD = "a1" * 32, "b2" * 32, "c3" * 32
HOUR_NS = 3600 * 10**9


class Titles:
    def clean(self, item: Item) -> str | None:
        return item.title


class Model:
    def __init__(self) -> None:
        self.read: list[str] = []

    def embed_texts(self, texts: list[str]) -> np.ndarray:
        self.read += texts
        return np.array([[len(text), 1.0, 2.0, 3.0] for text in texts], dtype=np.float32)


def catalogue(count: int, start: int = 0) -> list[Item]:
    return [Item(f"i{number}", title=f"text {number:03d}") for number in range(start, start + count)]


def embed(
    path: Path, items: list[Item], fingerprint: str, limit: str | None = None, **options: object
) -> tuple[CatalogueReport, list[str]]:
    model = Model()
    with StoreWriter.open(path) as store:
        staleness = None if limit is None else Staleness(store, fingerprint, StaleAfter.parse(limit))
        encoder = ItemEncoder(Titles(), model, fingerprint, 4, "test")
        embedding = CatalogueEmbedding(encoder, store, 8, Reporter(as_json=True), staleness=staleness, **options)
        return embedding.run([(item, item.title) for item in items], len(items)), sorted(model.read)


def made(path: Path, fingerprint: str, items: list[Item]) -> list[bool]:
    with EmbeddingStore.open(path) as store:
        present: list[bool] = store.read_vectors([item.item_id for item in items], fingerprint)[1].tolist()
    return present


@pytest.fixture
def hours(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The hour it is; write to it to let time pass."""
    now = [1000.0]
    monkeypatch.setattr("time.time_ns", lambda: int(now[0] * HOUR_NS))
    return now


def test_by_the_clock_only_old_vectors_and_new_items_are_embedded(tmp_path: Path, hours: list[float]) -> None:
    items = catalogue(6)
    embed(tmp_path, items[:2], FIRST)
    hours[0] += 30
    embed(tmp_path, items[:4], FIRST)
    hours[0] += 10
    report, read = embed(tmp_path, items, SECOND, "1d")
    assert read == ["text 000", "text 001", "text 004", "text 005"]
    assert (report.embedded, report.young, report.items) == (4, 2, 6)
    assert made(tmp_path, SECOND, items) == [True, True, False, False, True, True]
    assert made(tmp_path, FIRST, items[:4]) == [True] * 4
    assert embed(tmp_path, items, SECOND, "1d")[1] == []
    hours[0] += 15
    assert embed(tmp_path, items, SECOND, "24h")[1] == ["text 002", "text 003"]
    assert embed(tmp_path, items, SECOND, "24h")[0].young == 0


def test_by_models_a_vector_is_stale_when_so_many_came_after(tmp_path: Path) -> None:
    items = catalogue(4)
    embed(tmp_path, items[:2], FIRST)
    embed(tmp_path, items[2:], SECOND)
    # Whatever the store holds takes the second model too.
    assert made(tmp_path, SECOND, items) == [True] * 4
    new = catalogue(2, start=4)
    report, read = embed(tmp_path, [*items, *new], THIRD, "2")
    assert (read, report.young) == (["text 004", "text 005"], 4)
    report, read = embed(tmp_path, [*items, *new], THIRD, "1")
    assert (read, report.young) == ([f"text {number:03d}" for number in range(4)], 0)


def test_models_are_counted_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    with StoreWriter.open(tmp_path) as store:
        for fingerprint, item in zip((FIRST, SECOND, THIRD), catalogue(3), strict=True):
            encoder = ItemEncoder(Titles(), Model(), fingerprint, 4, "test")
            store.write([_put(encoder, item)])
        for limit, stale in (("1", [True, True, False]), ("2", [True, False, False]), ("3", [False] * 3)):
            judge = Staleness(store, THIRD, StaleAfter.parse(limit))
            assert [judge.stale(_record(store, f"i{number}")) for number in range(3)] == stale
        # A model that is new to the store comes after all of them.
        judge = Staleness(store, "d4" * 32, StaleAfter.parse("2"))
        assert [judge.stale(_record(store, f"i{number}")) for number in range(3)] == [True, True, False]


def _put(encoder: ItemEncoder, item: Item):
    from llmgr_core.store import EmbeddedText, Put

    return Put(item.item_id, encode_item(item), (EmbeddedText.of(encoder.fingerprint, item.title or "", np.ones(4)),))


def _record(store: EmbeddingStore, item_id: str):
    found = store.get_item(item_id)
    assert found is not None
    return found


def test_items_that_are_left_out_stay_out_though_the_store_knows_them(tmp_path: Path) -> None:
    items = catalogue(4)
    embed(tmp_path, items, FIRST)
    with StoreWriter.open(tmp_path) as store:
        inserted = catalogue(1, start=9)[0]
        store.put(
            inserted.item_id, encode_item(inserted), _put(ItemEncoder(Titles(), Model(), FIRST, 4, ""), inserted).texts[0]
        )
    report, read = embed(tmp_path, items, SECOND, leave_out=frozenset({"i0", "i2"}))
    assert (read, report.left_out) == (["text 001", "text 003", "text 009"], 2)


def test_force_embeds_the_young_as_well(tmp_path: Path) -> None:
    embed(tmp_path, catalogue(2), FIRST)
    assert embed(tmp_path, catalogue(2), SECOND, "1w", overwrite=True)[1] == ["text 000", "text 001"]


@pytest.mark.parametrize(("text", "limit"), [("90s", 90), ("30m", 1800), ("12h", 43_200), ("7d", 604_800), ("2w", 1_209_600)])
def test_durations(text: str, limit: int) -> None:
    assert StaleAfter.parse(text) == StaleAfter(seconds=limit)
    assert StaleAfter.parse("2") == StaleAfter(versions=2)


@pytest.mark.parametrize("text", ["", "0", "0d", "-1d", "1.5h", "week", "7 days"])
def test_what_is_no_age_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="no limit of age"):
        StaleAfter.parse(text)
