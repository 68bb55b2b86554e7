"""What a ranking server refuses to start with, and what it starts with all the same."""

from __future__ import annotations

import json

import pytest
from bundle_fixture import DIMENSION, ITEMS, OTHER_FINGERPRINT, Catalogue, put

from llmgr_core.errors import ArtefactError, LlmgrError
from llmgr_core.store import Encoder, StoreWriter
from services.ranking.live_ranker import LiveRanker


@pytest.fixture
def bare(tmp_path) -> Catalogue:
    """Places without bundle or store."""
    return Catalogue(tmp_path / "bundle", tmp_path / "store")


def item_rows(ranker: LiveRanker) -> list[bytes]:
    snapshot = ranker.snapshot
    return [snapshot.rows.vectors(snapshot.indices([f"item-{index}"])).tobytes() for index in range(ITEMS)]


def test_a_bundle_with_a_changed_byte_is_refused_and_the_file_named(catalogue):
    catalogue.damage_weights()
    with pytest.raises(ArtefactError, match=r"ranker\.safetensors was changed"):
        LiveRanker.open(catalogue.bundle, catalogue.store)


def test_a_bundle_of_another_format_version_is_refused_and_the_version_named(catalogue):
    manifest = catalogue.bundle / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format_version": 99}))
    with pytest.raises(ArtefactError, match="version 99"):
        LiveRanker.open(catalogue.bundle, catalogue.store)


def test_a_pickle_in_a_bundle_is_refused(catalogue):
    (catalogue.bundle / "extra.pkl").write_bytes(b"cos\nsystem\n")
    with pytest.raises(ArtefactError, match=r"extra\.pkl"):
        LiveRanker.open(catalogue.bundle, catalogue.store)


def test_a_missing_bundle_is_named_with_the_way_out(bare):
    with pytest.raises(ArtefactError, match="no bundle at"):
        LiveRanker.open(bare.bundle, bare.store)


def test_a_store_of_another_model_is_refused_and_both_are_named(bare):
    bare.write_bundle()
    bare.write_store(OTHER_FINGERPRINT)
    with pytest.raises(ArtefactError) as raised:
        LiveRanker.open(bare.bundle, bare.store)
    assert "000000000000" in str(raised.value)
    assert "ffffffffffff" in str(raised.value)
    assert raised.value.hint


def test_a_refused_store_can_be_opened_by_the_next(bare):
    bare.write_bundle()
    bare.write_store(OTHER_FINGERPRINT)
    with pytest.raises(ArtefactError):
        LiveRanker.open(bare.bundle, bare.store)
    with StoreWriter.open(bare.store) as writer:
        assert writer.sequence() == ITEMS


def test_a_missing_store_is_an_error_for_a_bundle_with_text(bare):
    bare.write_bundle()
    with pytest.raises(LlmgrError, match="no embedding store"):
        LiveRanker.open(bare.bundle, bare.store)


def test_a_file_that_is_no_store_is_an_error_that_names_it(bare):
    bare.write_bundle()
    bare.store.mkdir()
    (bare.store / "data.mdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(LlmgrError, match="store"):
        LiveRanker.open(bare.bundle, bare.store)


def test_an_empty_store_leaves_ranking_by_ids_alone(bare):
    bare.write_bundle()
    with bare.writer():
        pass
    ranker = LiveRanker.open(bare.bundle, bare.store)
    alone = ranker.runtime.parts.id_vectors
    rows = ranker.snapshot.rows.vectors(ranker.snapshot.indices(bare.item_ids))
    assert rows == pytest.approx(alone, abs=1e-5)
    assert ranker.snapshot.num_rankable == ITEMS
    ranker.close()


def test_a_store_that_fills_up_later_brings_its_text_into_the_rows(bare):
    bare.write_bundle()
    with bare.writer() as writer:
        ranker = LiveRanker.open(bare.bundle, bare.store)
        before = item_rows(ranker)
        writer.activate(Encoder("f" * 64, DIMENSION, "no model"))
        for index in range(ITEMS):
            put(writer, f"item-{index}", seed=index)
        assert ranker.follow() == []
    assert all(old != new for old, new in zip(before, item_rows(ranker), strict=True))
    assert ranker.snapshot.sequence == ITEMS
    ranker.close()


def test_rows_do_not_depend_on_whether_vectors_were_loaded_or_followed(catalogue, tmp_path):
    loaded = LiveRanker.open(catalogue.bundle, catalogue.store)
    other = Catalogue(catalogue.bundle, tmp_path / "second")
    with other.writer() as writer:
        writer.activate(Encoder("f" * 64, DIMENSION, "no model"))
        followed = LiveRanker.open(catalogue.bundle, other.store)
        for index in reversed(range(ITEMS)):
            put(writer, f"item-{index}", seed=index)
        followed.follow()
    ours, theirs = loaded.snapshot, followed.snapshot
    ids = catalogue.item_ids
    assert ours.rows.vectors(ours.indices(ids)) == pytest.approx(theirs.rows.vectors(theirs.indices(ids)), abs=1e-5)
    loaded.close()
    followed.close()


def test_a_bundle_that_ranks_by_ids_alone_needs_no_store(bare):
    bare.write_bundle(text_dimension=0)
    ranker = LiveRanker.open(bare.bundle, bare.store)
    assert ranker.fingerprint == ""
    assert ranker.store_epoch == ""
    assert ranker.follow() is None
    assert ranker.snapshot.num_rankable == ITEMS


def test_a_bundle_that_ranks_by_ids_alone_still_honours_deletions_of_any_store(bare):
    bare.write_bundle(text_dimension=0)
    bare.write_store(OTHER_FINGERPRINT)
    with bare.writer() as writer:
        writer.delete("item-5")
    ranker = LiveRanker.open(bare.bundle, bare.store)
    snapshot = ranker.snapshot
    ranking = snapshot.rank(snapshot.indices(["item-1"]), ITEMS)
    assert "item-5" not in {snapshot.item_id(index) for index in ranking.indices}
    ranker.close()


def test_new_items_and_deletions_of_the_store_are_there_from_the_start(catalogue):
    with catalogue.writer() as writer:
        put(writer, "brand-new", seed=5000)
        writer.delete("item-5")
        sequence = writer.sequence()
    ranker = LiveRanker.open(catalogue.bundle, catalogue.store)
    snapshot = ranker.snapshot
    ranking = snapshot.rank(snapshot.indices(["brand-new", "item-5"]), 1000, include_seen=True)
    ranked = {snapshot.item_id(index) for index in ranking.indices}
    assert "brand-new" in ranked
    assert "item-5" not in ranked
    assert not ranking.fallback
    assert snapshot.sequence == sequence
    ranker.close()


def test_a_new_item_deleted_before_a_restart_is_still_a_valid_click(catalogue):
    """Whether a ranker saw the deletion live, caught up with it in one piece, or started after it."""
    with catalogue.writer() as writer:
        watching = LiveRanker.open(catalogue.bundle, catalogue.store)
        put(writer, "brand-new", seed=5000)
        watching.follow()
        writer.delete("brand-new")
        watching.follow()
    catching_up = LiveRanker.open(catalogue.bundle, catalogue.store)
    rankings = []
    for ranker in (watching, catching_up):
        snapshot = ranker.snapshot
        ranking = snapshot.rank(snapshot.indices(["brand-new"]), 10)
        assert not ranking.fallback
        assert "brand-new" not in {snapshot.item_id(index) for index in ranking.indices}
        rankings.append([snapshot.item_id(index) for index in ranking.indices])
        ranker.close()
    assert rankings[0] == rankings[1]


def test_a_damaged_vector_costs_its_item_the_text_and_no_other_anything(catalogue):
    with catalogue.writer() as writer, writer._environment.write() as transaction:
        database = writer._environment.database("vectors")
        cursor = transaction.cursor(db=database)
        cursor.first()
        key, row = bytes(cursor.key()), bytearray(cursor.value())
        row[-1] ^= 0x40
        transaction.put(key, bytes(row), db=database)
    ranker = LiveRanker.open(catalogue.bundle, catalogue.store)
    by_id = ranker.runtime.parts.id_vectors
    rows = ranker.snapshot.rows.vectors(ranker.snapshot.indices(catalogue.item_ids))
    without_text = [index for index in range(ITEMS) if rows[index] == pytest.approx(by_id[index], abs=1e-6)]
    assert len(without_text) == 1
    assert ranker.snapshot.num_rankable == ITEMS
    ranker.close()
