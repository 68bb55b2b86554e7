"""Texts of a catalogue read elsewhere: which, in what parts, and how their vectors come into the store."""

import numpy as np
import pytest
from test_catalogue import ONE, OTHER, Model, Titles, catalogue

from llmgr_core.data.item import Item
from llmgr_core.progress import Reporter
from llmgr_core.store import EmbeddedText, EmbeddingStore, StoreWriter, VectorError, fingerprint_key, text_hash
from llmgr_core.store.catalogue import CatalogueEmbedding
from llmgr_core.store.hash_set import YOUNG, HashSet
from llmgr_core.store.item_encoder import ItemEncoder
from llmgr_core.store.item_record import encode_item
from llmgr_core.store.vector_intake import VectorIntake

COMMIT = 8


def embedding_into(store, model, fingerprint=ONE, **options):
    encoder = ItemEncoder(Titles(), model, fingerprint, 4, "test")
    return CatalogueEmbedding(encoder, store, COMMIT, Reporter(as_json=True), **options)


def with_texts(items):
    return [(item, item.title) for item in items]


class Refusing(Model):
    def embed_texts(self, texts):
        raise AssertionError(f"read here: {texts}")


class Parts(Model):
    """Keeps what it reads together."""

    def __init__(self):
        super().__init__()
        self.parts = []

    def embed_texts(self, texts):
        self.parts.append(list(texts))
        return super().embed_texts(texts)


def read_elsewhere(store, items, fingerprint=ONE, **options):
    """As `llmgr embed --ray`, with the reading done here; the report of the whole."""
    survey = embedding_into(store, Refusing(), fingerprint, **options)
    model, parts = Model(), list(survey.new_texts(with_texts(items), len(items)))
    intake = VectorIntake(store, fingerprint, COMMIT, survey.lost)
    # Actors finish in any order.
    for part in reversed(parts):
        encoder = ItemEncoder(Titles(), model, fingerprint, 4, "test")
        for text, vector in zip(part, encoder.encode(part), strict=True):
            intake.take(text_hash(text), vector)
    intake.commit()
    report = embedding_into(store, Refusing(), fingerprint, **options).run(with_texts(items), len(items))
    return intake.added_to(report), parts


def contents(path):
    with EmbeddingStore.open(path) as store:
        items = [(one.item_id, one.record, dict(one.texts), one.sequence, one.deleted) for one in store.items()]
        vectors = {
            (encoder.fingerprint, key): store.find_vector(encoder.fingerprint, key).tobytes()
            for encoder in store.encoders()
            for *_, texts, _, _ in items
            if (key := texts.get(fingerprint_key(encoder.fingerprint)))
        }
        return items, vectors, list(store.changes()), store.counts()


def prepare_history(store):
    """What online inserts, edits and deletions leave behind, under one encoder."""
    embedding_into(store, Model()).run(with_texts(catalogue(12)), 12)
    store.put("i3", encode_item(Item("i3", title="edited")), EmbeddedText.of(ONE, "edited", np.ones(4)))
    store.delete("i4")
    for number in range(5):
        title = f"online {number % 4}"
        store.put(f"new{number}", encode_item(Item(f"new{number}", title=title)), EmbeddedText.of(ONE, title, np.ones(4)))


ITEMS = [*catalogue(40), Item("same", title="text 001"), Item("again", title="text 033"), Item("empty")]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("fingerprint", [ONE, OTHER])
@pytest.mark.parametrize("history", [False, True])
def test_reading_elsewhere_leaves_the_store_and_the_report_as_reading_here(tmp_path, history, fingerprint, overwrite):
    model = Parts()
    with StoreWriter.open(tmp_path / "here") as here, StoreWriter.open(tmp_path / "elsewhere") as elsewhere:
        if history:
            prepare_history(here)
            prepare_history(elsewhere)
        expected = embedding_into(here, model, fingerprint, overwrite=overwrite).run(with_texts(ITEMS), len(ITEMS))
        report, parts = read_elsewhere(elsewhere, ITEMS, fingerprint, overwrite=overwrite)
    assert parts == model.parts
    expected.seconds = report.seconds
    assert report == expected
    assert contents(tmp_path / "here") == contents(tmp_path / "elsewhere")


def test_a_run_that_was_cut_off_looks_only_for_what_it_has_not_read(tmp_path):
    with StoreWriter.open(tmp_path) as store:
        survey = embedding_into(store, Refusing())
        parts = list(survey.new_texts(with_texts(ITEMS), len(ITEMS)))
        intake = VectorIntake(store, ONE, COMMIT, survey.lost)
        for text in (done := [text for part in parts[:2] for text in part]):
            intake.take(text_hash(text), np.ones(4, dtype=np.float16))
        intake.commit()
        assert store.sequence() == 0, "no item has these texts yet"
        rest = [text for part in embedding_into(store, Refusing()).new_texts(with_texts(ITEMS), len(ITEMS)) for text in part]
    assert len(done) == 16
    assert sorted(done + rest) == sorted({item.title for item in ITEMS if item.title})


def test_vectors_are_written_in_groups(tmp_path):
    with StoreWriter.open(tmp_path) as store:
        intake = VectorIntake(store, ONE, COMMIT, {})
        before = store.transaction_id()
        for number in range(3 * COMMIT + 1):
            intake.take(text_hash(f"text {number}"), np.ones(4, dtype=np.float16))
        assert store.transaction_id() - before == 3
        assert not store.known_texts(ONE, [text_hash("text 24")])[0]
        intake.commit()
        assert store.known_texts(ONE, [text_hash(f"text {number}") for number in range(25)]) == [True] * 25


def test_readers_hear_of_a_vector_that_was_lost_and_came_back(tmp_path):
    with StoreWriter.open(tmp_path) as store:
        embedding_into(store, Model()).run(with_texts(catalogue(6)), 6)
        lost = fingerprint_key(ONE) + text_hash("text 002")
        store.transact(lambda transaction: transaction.delete(lost, db=store.database("vectors")))
        before = store.sequence()
        report, parts = read_elsewhere(store, catalogue(6))
        assert parts == [["text 002"]]
        assert (report.embedded, report.unchanged, report.shared) == (1, 5, 0)
        assert [update.item_id for update in store.updates(before, ONE).updates] == ["i2"]


def test_a_text_without_a_usable_vector_is_named_and_the_others_are_stored(tmp_path):
    with StoreWriter.open(tmp_path) as store:
        items = [*catalogue(5), Item("cursed", title="NaN")]
        with pytest.raises(VectorError, match="1 items, for example 'cursed'"):
            read_elsewhere(store, items)
        assert store.counts()["live"] == 5


def test_a_vector_of_other_dimensions_is_refused(tmp_path):
    with StoreWriter.open(tmp_path) as store:
        embedding_into(store, Model()).run(with_texts(catalogue(2)), 2)
        intake = VectorIntake(store, ONE, COMMIT, {})
        intake.take(text_hash("x"), np.ones(5, dtype=np.float16))
        with pytest.raises(VectorError):
            intake.commit()


def test_a_hash_set_knows_what_was_added_and_nothing_else():
    generator = np.random.default_rng(3)
    there, absent = (generator.bytes(16 * (2 * YOUNG + 5)) for _ in range(2))
    seen = HashSet()
    for place in range(0, len(there), 16):
        seen.add(there[place : place + 16])
    places = range(0, len(there), 16 * 37)
    assert all(there[place : place + 16] in seen for place in places)
    assert there[-16:] in seen
    assert not any(absent[place : place + 16] in seen for place in places)
