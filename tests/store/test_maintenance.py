"""Checking, mending, pruning and compacting a store."""

import signal
import subprocess
import sys
import textwrap

import lmdb
import numpy as np
import pytest
from damaged_records import flip
from maintained_store import NEW, OLD, make_store, put, rows, vector_key

from llmgr_core.store import (
    Delete,
    EmbeddingStore,
    Encoder,
    StoreDamagedError,
    StoreError,
    StoreLockedError,
    StoreWriter,
    fingerprint_key,
)
from llmgr_core.store.compaction import compact_store
from llmgr_core.store.pruning import Pruning
from llmgr_core.store.records import item_key, sequence_key
from llmgr_core.store.repair import repair_store
from llmgr_core.store.verification import verify_store


@pytest.fixture
def path(tmp_path):
    make_store(tmp_path / "store")
    return tmp_path / "store"


# -- verify and repair ---------------------------------------------------------------------------------------------------------


def test_a_sound_store_is_left_as_it_is_by_repair(path):
    before = rows(path, "vectors", "items", "changes", "meta")
    assert repair_store(path).nothing
    assert rows(path, "vectors", "items", "changes", "meta") == before


def test_repair_of_a_vector_has_the_item_embedded_again(path):
    flip(path, "vectors", vector_key("text 7"))
    report = repair_store(path)
    assert (report.vectors, report.embed_again, report.insert_again) == ([vector_key("text 7").hex()], ["item-7"], [])
    assert verify_store(path).problems == []
    with StoreWriter.open(path) as store:
        assert store.missing_vectors(OLD) == ["item-7"]
        assert store.get_item("item-7").record == b"text 7"
        store.write([put(7)])
        assert store.missing_vectors(OLD) == []


def test_repair_of_an_item_names_it_and_lets_it_be_inserted_again(path):
    flip(path, "items", item_key("item-3"))
    report = repair_store(path)
    assert (report.insert_again, report.embed_again, report.vectors) == (["item-3"], [], [])
    assert report.changes == [4, 31, 32]
    assert verify_store(path).problems == []
    with StoreWriter.open(path) as store:
        assert store.get_item("item-3") is None
        assert store.counts()["live"] == 28
        assert store.write([put(3)])[0].sequence == 35
        assert store.counts()["live"] == 29
    assert verify_store(path).problems == []


@pytest.mark.parametrize(("sequence", "restored"), [(33, True), (34, True), (31, False)])
def test_repair_of_a_change_writes_it_anew_from_the_item_where_no_later_one_stands_for_it(path, sequence, restored):
    before = rows(path)["changes"]
    flip(path, "changes", sequence_key(sequence))
    assert not verify_store(path).sound
    assert repair_store(path).changes == [sequence]
    assert verify_store(path).problems == []
    after = rows(path)["changes"]
    assert [key for key, _ in after] == [key for key, _ in before if restored or key != sequence_key(sequence)]
    if sequence == 33:
        assert after == before


def test_a_change_that_is_gone_is_written_anew(path):
    flip(path, "changes", sequence_key(33), drop=True)
    assert any("33" in problem and "missing" in problem for problem in verify_store(path).problems)
    assert repair_store(path).changes == [33]
    assert verify_store(path).problems == []


@pytest.mark.parametrize("key", [b"epoch", b"active", b"encoder:" + fingerprint_key(OLD)])
def test_what_a_store_says_about_itself_has_a_checksum(path, key):
    flip(path, "meta", key)
    for kind in (EmbeddingStore, StoreWriter):
        with pytest.raises(StoreDamagedError, match="says about itself"):
            kind.open(path)
    assert not verify_store(path).sound
    assert repair_store(path).metadata
    if key == b"epoch":
        assert verify_store(path).problems == []


def test_a_store_from_before_that_checksum_opens_and_gets_one_with_the_next_encoder(path):
    flip(path, "meta", b"checksum", drop=True)
    with StoreWriter.open(path) as store:
        store.register(Encoder("c4" * 32, 3))
    flip(path, "meta", b"epoch")
    with pytest.raises(StoreDamagedError):
        EmbeddingStore.open(path)


def test_a_wrong_number_of_live_items_is_found_and_mended(path):
    with lmdb.open(str(path), max_dbs=4) as environment:
        handle = environment.open_db(b"meta")
        with environment.begin(write=True) as transaction:
            transaction.put(b"live", b"7", db=handle)
    assert verify_store(path).problems == ["count: 29 items are live, the store says 7"]
    repair_store(path)
    assert verify_store(path).problems == []


# -- prune ---------------------------------------------------------------------------------------------------------------------


def test_pruning_drops_what_nothing_needs_and_every_reader_sees_the_same(path):
    with StoreWriter.open(path) as store:
        before = store.snapshot(OLD)
        report = Pruning(store, keep_changes=0).run()
        after = store.snapshot(OLD)
        # Texts "text 3" and "edited", changes 4, 31, 5 (deleted later) and 6 (embedded again later).
        assert (report.vectors, report.changes) == (2, 4)
        assert before.item_ids == after.item_ids
        np.testing.assert_array_equal(before.vectors, after.vectors)
        assert after.present[after.item_ids.index("item-4")], "a tombstone is still a valid click"
        updates = store.updates(0, OLD)
        assert {one.item_id for one in updates.updates} == set(after.item_ids)
        assert updates.sequence == store.sequence() == 34
    assert verify_store(path).problems == []


def test_the_newest_changes_all_stay(path):
    with StoreWriter.open(path) as store:
        Pruning(store, keep_changes=4).run()
        assert [change.sequence for change in store.changes(since=30)] == [31, 32, 33, 34]


def test_a_text_that_comes_back_while_a_store_is_pruned_keeps_its_vector(path, monkeypatch):
    monkeypatch.setattr("llmgr_core.store.pruning.BLOCK", 5)
    with StoreWriter.open(path) as store:
        steps = Pruning(store, keep_changes=0).blocks()
        next(steps)
        store.write([put(100, "edited"), put(101, "text 3")])
        for _ in steps:
            pass
        assert store.read_vectors(["item-100", "item-101"], OLD)[1].all()
    assert verify_store(path).problems == []


def test_an_encoder_is_forgotten_with_its_vectors_but_never_the_active_one(path):
    with StoreWriter.open(path) as store:
        with pytest.raises(StoreError, match="active"):
            Pruning(store, forget=[OLD])
        report = Pruning(store, forget=[NEW]).run()
        assert (report.encoders, report.vectors) == ([NEW], 3)
        assert [one.fingerprint for one in store.encoders()] == [OLD]
        assert set(store.get_item("item-5").texts) == {fingerprint_key(OLD)}
    assert verify_store(path).problems == []


def test_a_gap_that_pruning_did_not_make_is_still_found(path):
    with StoreWriter.open(path) as store:
        Pruning(store, keep_changes=4).run()
    flip(path, "changes", sequence_key(31), drop=True)
    assert any("31 to 31" in problem for problem in verify_store(path).problems)


# -- compact -------------------------------------------------------------------------------------------------------------------


def test_compacting_keeps_every_byte_and_gives_the_space_back(path):
    with StoreWriter.open(path) as store:
        store.write([put(number) for number in range(30, 2000)])
        store.write([Delete(f"item-{number}") for number in range(30, 2000)])
        for _ in Pruning(store, keep_changes=0).blocks():
            pass
        epoch = store.epoch
    before = rows(path, "vectors", "items", "changes")
    report = compact_store(path)
    assert report.after < report.before
    assert report.after == (path / "data.mdb").stat().st_size
    assert rows(path, "vectors", "items", "changes") == before
    assert verify_store(path).problems == []
    assert sorted(one.name for one in path.iterdir()) == ["data.mdb", "lock.mdb", "opening.lock", "writer.lock"]
    with StoreWriter.open(path) as store:
        assert store.epoch == epoch
        assert store.write([put(5000)])[0].sequence == 34 + 2 * 1970 + 1


def test_a_reader_goes_on_while_the_store_is_compacted_and_the_next_one_reads_the_new_file(path):
    program = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        from llmgr_core.store import EmbeddingStore
        store = EmbeddingStore.open(Path({str(path)!r}))
        with store.transaction():
            print("open", flush=True)
            for line in sys.stdin:
                print(store.sequence(), int(store.snapshot({OLD!r}).present.sum()), flush=True)
    """)
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout.readline() == "open\n"
        compact_store(path)
        with StoreWriter.open(path) as store:
            # LMDB's lock file went with the old file: its readers hold no page of the new one.
            assert reader.pid not in [pid for pid, _ in store.readers()]
            for number in range(200):
                store.write([put(1000 + number)])
            assert store.sequence() == 234
        reader.stdin.write("look\n")
        reader.stdin.flush()
        assert reader.stdout.readline() == "34 30\n"
        reader.stdin.close()
        assert reader.wait() == 0
    assert verify_store(path).problems == []


def test_a_compaction_killed_before_the_exchange_leaves_the_old_store(path):
    program = textwrap.dedent(f"""
        import os, signal
        from pathlib import Path
        import llmgr_core.store.compaction as compaction
        compaction.put_in_place = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        compaction.compact_store(Path({str(path)!r}))
    """)
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    assert verify_store(path).problems == []
    compact_store(path)
    assert not (path / "compacting").exists()


def test_a_store_that_is_being_written_is_not_compacted(path):
    inode = (path / "data.mdb").stat().st_ino
    with StoreWriter.open(path), pytest.raises(StoreLockedError):
        compact_store(path)
    assert (path / "data.mdb").stat().st_ino == inode
