"""Embedding a catalogue into a store, whatever is there already."""

import numpy as np
import pytest

from llmgr_core.data.item import Item
from llmgr_core.progress import Reporter
from llmgr_core.store import EmbeddedText, EmbeddingStore, StoreError, StoreWriter, VectorError, fingerprint_key
from llmgr_core.store.catalogue import CatalogueEmbedding
from llmgr_core.store.item_encoder import ItemEncoder
from llmgr_core.store.item_record import decode_item, encode_item

ONE, OTHER = "a1" * 32, "b2" * 32


class Titles:
    def clean(self, item):
        return item.title


class Model:
    """Vectors from the text's length; NaN for a text that says so; stops after ``patience`` texts."""

    def __init__(self, patience=10**9):
        self.read, self.patience = [], patience

    def embed_texts(self, texts):
        if len(self.read) + len(texts) > self.patience:
            raise KeyboardInterrupt
        self.read += texts
        rows = np.array([[len(text), 1.0, 2.0, 3.0] for text in texts], dtype=np.float32)
        rows[[text == "NaN" for text in texts]] = np.nan
        return rows


def embed(path, items, model=None, *, fingerprint=ONE, overwrite=False, commit_texts=8):
    model = model or Model()
    with StoreWriter.open(path) as store:
        encoder = ItemEncoder(Titles(), model, fingerprint, 4, "test")
        embedding = CatalogueEmbedding(encoder, store, commit_texts, Reporter(as_json=True), overwrite=overwrite)
        report = embedding.run([(item, item.title) for item in items], len(items))
    return report, model


def catalogue(count=30):
    return [Item(f"i{number}", title=f"text {number:03d}") for number in range(count)]


def test_every_item_with_text_gets_its_vector(tmp_path):
    items = [*catalogue(), Item("same", title="text 001"), Item("empty")]
    report, model = embed(tmp_path, items)
    assert (report.items, report.embedded, report.shared, report.without_text) == (32, 30, 1, 1)
    assert sorted(model.read) == sorted({item.title for item in items if item.title})
    with EmbeddingStore.open(tmp_path) as store:
        vectors, present = store.read_vectors([item.item_id for item in items], ONE)
        assert present.tolist() == [True] * 31 + [False]
        assert vectors[5].tolist() == [8, 1, 2, 3]
        assert decode_item("i3", store.get_item("i3").record) == items[3]


def test_doing_it_again_reads_and_writes_nothing(tmp_path):
    embed(tmp_path, catalogue())
    report, model = embed(tmp_path, catalogue())
    assert (report.unchanged, report.embedded, model.read) == (30, 0, [])
    with EmbeddingStore.open(tmp_path) as store:
        assert store.sequence() == 30


def test_what_was_done_before_a_run_was_cut_off_is_not_done_again(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        embed(tmp_path, catalogue(), Model(patience=20))
    report, model = embed(tmp_path, catalogue())
    assert report.unchanged == 16
    assert len(model.read) == 14


def test_edits_and_deletions_since_stay_as_they_are(tmp_path):
    embed(tmp_path, catalogue(3))
    with StoreWriter.open(tmp_path) as store:
        vector = np.ones(4)
        store.put("i0", encode_item(Item("i0", title="edited")), EmbeddedText.of(ONE, "edited", vector))
        store.delete("i1")
    report, model = embed(tmp_path, catalogue(3))
    assert (report.unchanged, report.deleted, model.read) == (2, 1, [])
    with EmbeddingStore.open(tmp_path) as store:
        assert decode_item("i0", store.get_item("i0").record).title == "edited"
        assert store.get_item("i1").deleted


def test_overwriting_brings_the_data_set_back(tmp_path):
    embed(tmp_path, catalogue(2))
    with StoreWriter.open(tmp_path) as store:
        store.put("i0", encode_item(Item("i0", title="edited")), EmbeddedText.of(ONE, "edited", np.ones(4)))
        store.delete("i1")
    report, model = embed(tmp_path, catalogue(2), overwrite=True)
    assert (report.shared, model.read) == (2, [])
    with EmbeddingStore.open(tmp_path) as store:
        assert store.read_vectors(["i0", "i1"], ONE)[1].all()
        assert decode_item("i0", store.get_item("i0").record).title == "text 000"


def test_another_encoder_embeds_the_whole_store_beside_the_first(tmp_path):
    embed(tmp_path, catalogue(3))
    with StoreWriter.open(tmp_path) as store:
        store.put("new", encode_item(Item("new", title="online")), EmbeddedText.of(ONE, "online", np.ones(4)))
    report, model = embed(tmp_path, catalogue(3), fingerprint=OTHER)
    assert sorted(model.read) == ["online", "text 000", "text 001", "text 002"]
    assert report.items == 4
    with EmbeddingStore.open(tmp_path) as store:
        for item in store.items():
            assert set(item.texts) == {fingerprint_key(ONE), fingerprint_key(OTHER)}


def test_a_text_without_a_usable_vector_is_named_and_the_others_are_stored(tmp_path):
    items = [*catalogue(5), Item("cursed", title="NaN")]
    with pytest.raises(VectorError, match="1 items, for example 'cursed'"):
        embed(tmp_path, items)
    with EmbeddingStore.open(tmp_path) as store:
        assert store.counts()["live"] == 5


def test_a_model_of_other_dimensions_is_refused_before_it_reads(tmp_path):
    embed(tmp_path, catalogue(2))
    model = Model()
    with StoreWriter.open(tmp_path) as store:
        encoder = ItemEncoder(Titles(), model, ONE, 8, "test")
        with pytest.raises(StoreError, match="same fingerprint"):
            CatalogueEmbedding(encoder, store, 8, Reporter(as_json=True)).run([], 0)
    assert model.read == []


@pytest.mark.parametrize(
    "item",
    [
        Item("a"),
        Item("a", title="t"),
        Item("a", "t", "d", "b", (("x", "y"), ("z",)), {"k": "v"}),
        Item("ü", title="\ud7ff\n\t\"'"),
    ],
)
def test_an_item_comes_back_from_its_record(item):
    assert decode_item(item.item_id, encode_item(item)) == item


def test_equal_items_have_equal_records():
    assert encode_item(Item("a", "t", attributes={"x": "1", "y": "2"})) == encode_item(
        Item("b", "t", description="", attributes={"y": "2", "x": "1"})
    )


@pytest.mark.parametrize("record", [b"[]", b"not json", b'{"categories": 3}', b'{"attributes": ["x"]}'])
def test_a_record_of_something_else_is_refused(record):
    with pytest.raises(StoreError, match="'a'"):
        decode_item("a", record)
