"""The change to a new language model while the server runs: both vectors readable, no item left behind, a way back."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from bundle_fixture import Catalogue, free_port_settings
from embedding_fixture import DIMENSIONS, FINGERPRINT, ControlledModel, client_of, encoder_around, settings_with
from patience import PATIENCE, wait_until

from llmgr_core.data.item import Item
from llmgr_core.errors import ArtefactError
from llmgr_core.store import EmbeddingStore, StoreError, StoreWriter, fingerprint_key, text_hash
from llmgr_core.store.verification import verify_store
from services.client import RankingClient, ServiceError
from services.embedding import background_work
from services.embedding.background import serve_in_background
from services.ranking import bundle_watcher
from services.ranking.live_ranker import LiveRanker
from services.ranking.server import RankingServer

NEXT = "e7" * 32


class OtherModel(ControlledModel):
    """Another language model: other numbers for the same text."""

    def vector(self, text):
        return super().vector(text)[::-1].copy()


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch):
    monkeypatch.setattr(background_work, "LOOK_AGAIN_S", 0.02)
    monkeypatch.setattr(bundle_watcher, "SECONDS_BEFORE_RETRY", 0.05)


@contextmanager
def serving(path, model=None, *overrides, next_model=None, fingerprint=FINGERPRINT):
    """A client of a server with one encoder, or with a next one."""
    following = None if next_model is None else encoder_around(next_model, NEXT, "next")
    models = [one for one in (model, next_model) if one is not None]
    encoder = encoder_around(model or ControlledModel(), fingerprint)
    with serve_in_background(encoder, path, settings_with(*overrides), following) as listening, client_of(listening) as client:
        try:
            yield client
        finally:
            for one in models:
                one.running.set()


def insert(path, count=30):
    with serving(path) as client:
        list(client.embed_many([Item(f"i{number}", title=f"text {number}") for number in range(count)]))


def test_the_whole_catalogue_is_embedded_again_and_then_the_new_encoder_is_served(tmp_path):
    insert(tmp_path)
    new = OtherModel()
    with serving(tmp_path, next_model=new) as client:
        wait_until(lambda: client.info().model_version == NEXT)
        stored = client.get("i7", return_vector=True)
        np.testing.assert_array_equal(stored.vector, new.vector("text 7").astype(np.float16))
        with EmbeddingStore.open(tmp_path) as store:
            assert store.active_fingerprint() == NEXT
            for fingerprint in (FINGERPRINT, NEXT):
                assert store.missing_vectors(fingerprint) == []
    assert sorted(new.texts) == sorted(f"text {number}" for number in range(30))
    assert verify_store(tmp_path).problems == []


def test_both_versions_are_readable_and_inserts_write_both_until_the_switch(tmp_path):
    insert(tmp_path)
    old, new = ControlledModel(), OtherModel()
    new.running.clear()
    with serving(tmp_path, old, "engine.batch_tokens=64", next_model=new) as client:
        assert new.entered.wait(PATIENCE)
        # The old encoder is served while the new one is still at work.
        assert client.info().model_version == FINGERPRINT
        assert client.embed(Item("i3", title="text 3")).model_version == FINGERPRINT
        outcome = []
        inserting = threading.Thread(target=lambda: outcome.append(client.embed(Item("new", title="brand new"))))
        inserting.start()
        wait_until(lambda: "brand new" in old.texts)
        client.delete("i29")
        new.running.set()
        inserting.join()
        assert outcome[0].model_version == FINGERPRINT
        with EmbeddingStore.open(tmp_path) as store:
            assert set(store.get_item("new").texts) == {fingerprint_key(FINGERPRINT), fingerprint_key(NEXT)}
        wait_until(lambda: client.info().model_version == NEXT)
        # The way back stays open: inserts after the switch are written under both too.
        assert client.embed(Item("later", title="later still")).model_version == NEXT
        with EmbeddingStore.open(tmp_path) as store:
            assert set(store.get_item("later").texts) == {fingerprint_key(FINGERPRINT), fingerprint_key(NEXT)}
            assert store.get_item("i29").deleted


def test_a_server_killed_in_between_goes_on_where_it_stood(tmp_path):
    insert(tmp_path)
    new = OtherModel()
    new.broken = {"text 5"}
    with serving(tmp_path, next_model=new) as client:
        wait_until(lambda: len(set(new.texts)) == 30)
        # One item has no vector of the new encoder: it must not become the active one.
        wait_until(lambda: EmbeddingStoreFacts(tmp_path).missing == ["i5"])
        assert client.info().model_version == FINGERPRINT
    again = OtherModel()
    with serving(tmp_path, next_model=again) as client:
        wait_until(lambda: client.info().model_version == NEXT)
    assert set(again.texts) == {"text 5"}


class EmbeddingStoreFacts:
    """What a reader of the store sees now."""

    def __init__(self, path):
        with EmbeddingStore.open(path) as store:
            self.missing = store.missing_vectors(NEXT)


def test_what_the_new_encoder_cannot_embed_is_no_reason_to_refuse_an_insert(tmp_path):
    insert(tmp_path)
    new = OtherModel()
    new.broken, new.raising = {"text 5"}, {"cursed"}
    with serving(tmp_path, next_model=new) as client:
        # Text 5 keeps the old encoder in its place.
        wait_until(lambda: EmbeddingStoreFacts(tmp_path).missing == ["i5"])
        assert client.embed(Item("a", title="cursed")).model_version == FINGERPRINT
        assert client.get("a").item.title == "cursed"
    old = ControlledModel()
    old.broken = {"bad"}
    with serving(tmp_path / "two", old, next_model=OtherModel()) as client:
        wait_until(lambda: client.info().model_version == NEXT)
        # Now the new one is the one that counts.
        assert client.embed(Item("b", title="bad")).model_version == NEXT


class Gate:
    """Where a thread waits until the test lets it go on; open ever after."""

    def __init__(self):
        self.entered, self.go_on = threading.Event(), threading.Event()

    def wait(self):
        self.entered.set()
        assert self.go_on.wait(4 * PATIENCE)


def test_an_item_that_came_after_the_last_look_holds_the_change_back(tmp_path, monkeypatch):
    insert(tmp_path)
    look, write = Gate(), Gate()
    missing_vectors, write_group = StoreWriter.missing_vectors, StoreWriter.write

    def held_look(store, encoder, **options):
        missing = missing_vectors(store, encoder, **options)
        if encoder == NEXT and not missing:
            look.wait()
        return missing

    def held_write(store, group):
        if any(one.item_id == "late" for one in group):
            write.wait()
        return write_group(store, group)

    monkeypatch.setattr(StoreWriter, "missing_vectors", held_look)
    monkeypatch.setattr(StoreWriter, "write", held_write)
    monkeypatch.setattr(background_work, "TRY_AGAIN_S", 0.05)
    new = OtherModel()
    new.raising = {"late"}
    with serving(tmp_path, next_model=new) as client:
        assert look.entered.wait(PATIENCE)
        inserting = threading.Thread(target=client.embed, args=[Item("late", title="late")])
        inserting.start()
        assert write.entered.wait(PATIENCE)
        look.go_on.set()
        write.go_on.set()
        inserting.join()
        wait_until(lambda: new.texts.count("late") > 4)
        assert client.info().model_version == FINGERPRINT
        new.raising.clear()
        wait_until(lambda: client.info().model_version == NEXT)
        assert EmbeddingStoreFacts(tmp_path).missing == []


def test_an_insert_that_was_under_way_when_the_encoder_changed_is_not_left_without_its_vector(tmp_path):
    insert(tmp_path)
    old, new = ControlledModel(), OtherModel()
    new.raising = {"late"}
    old.running.clear()
    with serving(tmp_path, old, next_model=new) as client, ThreadPoolExecutor(1) as pool:
        inserting = pool.submit(client.embed, Item("late", title="late"))
        wait_until(lambda: "late" in new.texts and "late" in old.texts)
        wait_until(lambda: client.info().model_version == NEXT)
        old.running.set()
        with pytest.raises(ServiceError, match="gave no usable vector"):
            inserting.result()
        assert EmbeddingStoreFacts(tmp_path).missing == []
        with pytest.raises(ServiceError, match="no item"):
            client.get("late")


def test_ranking_takes_the_new_bundle_over_when_every_item_has_its_vector(tmp_path):
    catalogue = Catalogue(tmp_path / "bundle", tmp_path / "store")
    catalogue.write_bundle(fingerprint=FINGERPRINT, text_dimension=DIMENSIONS)
    insert(catalogue.store)
    new = OtherModel()
    new.running.clear()
    with serving(catalogue.store, ControlledModel(), next_model=new):
        assert new.entered.wait(PATIENCE)
        with RankingServer(catalogue.bundle, catalogue.store, free_port_settings()) as ranking:
            client = RankingClient(ranking.address, timeout=PATIENCE)
            before = client.info().model_version
            catalogue.write_bundle(fingerprint=NEXT, text_dimension=DIMENSIONS)
            with pytest.raises(ArtefactError, match="30 items of the store"):
                LiveRanker.open(catalogue.bundle, catalogue.store)
            assert client.rank(["i1"]).model_version == before
            new.running.set()
            wait_until(lambda: client.info().model_version != before)
            ranking = client.rank(["i1", "i2"])
            assert not ranking.unknown_item_ids


def test_the_way_back_is_the_old_bundle_and_one_command(tmp_path):
    insert(tmp_path)
    with serving(tmp_path, next_model=OtherModel()) as client:
        wait_until(lambda: client.info().model_version == NEXT)
        client.embed(Item("later", title="later"))
    with pytest.raises(StoreError, match="--next-bundle"), serving(tmp_path):
        pass
    with StoreWriter.open(tmp_path) as store:
        store.activate(next(one for one in store.encoders() if one.fingerprint == FINGERPRINT))
        before = store.sequence()
    old = ControlledModel()
    with serving(tmp_path, old) as client:
        assert client.info().model_version == FINGERPRINT
        stored = client.get("later", return_vector=True)
        np.testing.assert_array_equal(stored.vector, old.vector("later").astype(np.float16))
        assert client.info().sequence == before
    assert not old.texts


def test_a_server_started_again_after_the_switch_with_the_same_bundles_serves_the_new_encoder(tmp_path):
    insert(tmp_path)
    with serving(tmp_path, next_model=OtherModel()) as client:
        wait_until(lambda: client.info().model_version == NEXT)
    with serving(tmp_path, next_model=OtherModel()) as client:
        assert client.info().model_version == NEXT
        client.embed(Item("later", title="later"))
        with EmbeddingStore.open(tmp_path) as store:
            assert len(store.get_item("later").texts) == 2


def test_callers_go_before_what_is_done_in_the_background(tmp_path):
    insert(tmp_path, count=300)
    old, new = ControlledModel(), OtherModel()
    new.running.clear()
    with serving(tmp_path, old, next_model=new) as client:
        assert new.entered.wait(PATIENCE)
        inserting = threading.Thread(target=client.embed, args=[Item("now", title="now")])
        inserting.start()
        # It is handed to both models at the same time.
        wait_until(lambda: "now" in old.texts)
        new.running.set()
        inserting.join()
        wait_until(lambda: client.info().model_version == NEXT)
    place = next(number for number, batch in enumerate(new.batches) if "now" in batch)
    assert place == 1
    assert new.batches[1][0] == "now"


def test_items_that_another_encoder_stands_for_are_embedded_only_where_it_is_asked_for(tmp_path):
    insert(tmp_path, count=5)
    with StoreWriter.open(tmp_path) as store:
        store.activate(next(one for one in store.encoders()))
    other = encoder_around(OtherModel(), NEXT, "next")
    with StoreWriter.open(tmp_path) as store:
        from llmgr_core.store import Encoder

        store.activate(Encoder(NEXT, other.dimensions, "next"))
    with serving(tmp_path, OtherModel(), fingerprint=NEXT) as client:
        client.embed(Item("x", title="x"))
        time.sleep(0.2)
        assert len(EmbeddingStoreFacts(tmp_path).missing) == 5
    with serving(tmp_path, OtherModel(), "embed.fill_missing=true", fingerprint=NEXT):
        wait_until(lambda: EmbeddingStoreFacts(tmp_path).missing == [])


def test_the_server_prunes_by_itself_and_inserts_go_on(tmp_path):
    with serving(tmp_path, None, "embed.prune_hours=0.0001", "embed.keep_changes=0") as client:
        for number in range(20):
            client.embed(Item("a", title=f"edit {number}"))

        def pruned():
            with EmbeddingStore.open(tmp_path) as store:
                return store.counts()["vectors"] == 1 and store.counts()["changes"] == 1

        wait_until(pruned)
        assert client.embed(Item("a", title="edit 3")).sequence == 21
    report = verify_store(tmp_path)
    assert report.problems == []
    with EmbeddingStore.open(tmp_path) as store:
        assert store.find_vector(FINGERPRINT, text_hash("edit 3")) is not None


def test_an_unexpected_error_does_not_end_the_pruning(tmp_path, monkeypatch, caplog):
    sequence, failures = StoreWriter.sequence, [RuntimeError("a fault of ours")]

    def failing_once(store):
        if failures and threading.current_thread().name.startswith("store-writer"):
            raise failures.pop()
        return sequence(store)

    with serving(tmp_path, None, "embed.prune_hours=0.0001", "embed.keep_changes=0") as client:
        client.embed(Item("a", title="edit 1"))
        monkeypatch.setattr(StoreWriter, "sequence", failing_once)
        client.embed(Item("a", title="edit 2"))

        def pruned():
            with EmbeddingStore.open(tmp_path) as store:
                return not failures and store.counts()["changes"] == 1

        wait_until(pruned)
    assert "a fault of ours" in caplog.text


def test_an_id_that_was_refused_is_not_filled_either(tmp_path):
    with serving(tmp_path, next_model=OtherModel()) as client:
        with pytest.raises(ServiceError):
            client.embed(Item("a", title="<br>"))
        wait_until(lambda: client.info().model_version == NEXT)
    assert verify_store(tmp_path).problems == []
