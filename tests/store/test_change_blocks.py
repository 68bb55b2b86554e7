"""Blocks of the change log and whole copies, without any network: every prefix is a sound store, nothing is doubled."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest

from llmgr_core.store import Delete, EmbeddedText, EmbeddingStore, Encoder, Put, StoreWriter
from llmgr_core.store.change_blocks import read_block
from llmgr_core.store.errors import StoreDamagedError
from llmgr_core.store.pruning import Pruning
from llmgr_core.store.records import DamagedRecordError, unpack_item
from llmgr_core.store.replica import DivergedError, ReplicaStore
from llmgr_core.store.verification import verify_store
from llmgr_core.store.whole_copy import ArrivingCopy, CopyEnd, CopyHead, CopyPart, copy_parts

ENCODER = Encoder("e" * 64, 4, "no model")


def put(name, seed):
    vector = np.random.default_rng(seed).normal(size=4)
    return Put(name, b"{}", (EmbeddedText.of(ENCODER.fingerprint, f"text {seed}", vector),))


def insert(writer, name, seed):
    return writer.write([put(name, seed)])[0].sequence


@pytest.fixture
def source(tmp_path):
    """A store in which items were edited, deleted and brought back."""
    with StoreWriter.open(tmp_path / "source") as writer:
        writer.activate(ENCODER)
        operations = []
        for number in range(30):
            operations.append(put(f"item-{number % 12}", number))
            if number % 5 == 0:
                operations.append(Delete(f"item-{(number + 3) % 12}"))
        writer.write(operations)
        yield writer


def copied(store, path, *, leave_out=None, flip=None):
    parts = list(copy_parts(store, part_bytes=100))
    arriving = ArrivingCopy(path, parts[0])
    for number, part in enumerate(parts[1:-1]):
        if number == flip:
            key, value = part.rows[0]
            part = CopyPart(part.database, ((key, value[:-1] + bytes([value[-1] ^ 1])), *part.rows[1:]))
        if number != leave_out:
            arriving.take(part)
    arriving.finish(parts[-1])
    return ReplicaStore(path)


def rows(store):
    """All rows, but vectors that no item has any more: a source keeps those for texts that come back."""
    with store.transaction() as transaction:
        found = {
            name: {bytes(key): bytes(value) for key, value in transaction.cursor(db=store.database(name))}
            for name in ("vectors", "items", "changes")
        }
    texts = {encoder + text for row in found["items"].values() for encoder, text in unpack_item(row).texts.items()}
    return {**found, "vectors": {key: value for key, value in found["vectors"].items() if key in texts}}


@pytest.fixture
def replica(source, tmp_path):
    """A copy of the source's beginning."""
    with StoreWriter.open(tmp_path / "first") as first:
        first.activate(ENCODER)
        head = CopyHead(source.epoch, 0, 0, 0, read_block(source, 0).description)
    arriving = ArrivingCopy(tmp_path / "replica", head)
    arriving.finish(CopyEnd({"vectors": 0, "items": 0, "changes": 0}))
    store = ReplicaStore(tmp_path / "replica")
    yield store
    store.close()


@pytest.mark.parametrize("most_changes", [3, 1000])
def test_every_prefix_of_the_blocks_is_a_sound_store_and_all_of_them_are_the_source(source, replica, tmp_path, most_changes):
    while (block := read_block(source, replica.position, most_changes=most_changes)).changes:
        assert replica.apply([block]) == block.changes
        assert verify_store(tmp_path / "replica").sound
    assert rows(replica.writer) == rows(source)
    assert replica.writer.counts()["live"] == source.counts()["live"]
    assert replica.writer.epoch == source.epoch


def test_blocks_that_come_twice_or_overlap_change_nothing(source, replica):
    first, both = read_block(source, 0, most_changes=10), read_block(source, 0)
    assert replica.apply([first, first]) == 10
    assert replica.apply([both]) == source.sequence() - 10
    assert replica.apply([both, first]) == 0
    assert rows(replica.writer) == rows(source)


def test_a_block_after_a_gap_or_of_another_store_is_refused(source, replica, tmp_path):
    with pytest.raises(DivergedError) as gap:
        replica.apply([read_block(source, 5)])
    assert gap.value.reason == "gap"
    with StoreWriter.open(tmp_path / "other") as other:
        insert(other, "a", 1)
        with pytest.raises(DivergedError) as foreign:
            replica.apply([read_block(other, 0)])
    assert foreign.value.reason == "other_source"
    assert replica.position == 0


def test_another_history_under_the_same_store_id_is_refused(source, replica, tmp_path):
    replica.apply([read_block(source, 0)])
    with closing(copied(source, tmp_path / "twin")) as twin:
        twin_writer = twin.writer
        insert(twin_writer, "only-there", 500)
        insert(twin_writer, "only-there-too", 501)
        insert(source, "only-here", 600)
        replica.apply([read_block(source, replica.position)])
        with pytest.raises(DivergedError) as other:
            replica.apply([read_block(twin_writer, replica.position)])
    assert other.value.reason == "other_history"


def test_what_the_source_pruned_is_no_fault_in_a_replica(source, replica, tmp_path):
    Pruning(source, keep_changes=3).run()
    replica.apply([read_block(source, 0)])
    assert verify_store(tmp_path / "replica").sound
    assert rows(replica.writer) == rows(source)


def test_a_whole_copy_is_the_source_bit_for_bit(source, tmp_path):
    with closing(copied(source, tmp_path / "copy")) as copy:
        assert rows(copy.writer) == rows(source)
        assert (copy.epoch, copy.position) == (source.epoch, source.sequence())
        insert(source, "later", 900)
        assert copy.apply([read_block(source, copy.position)]) == 1
    assert verify_store(tmp_path / "copy").sound


def test_a_copy_with_a_damaged_or_a_missing_part_never_takes_a_place(source, tmp_path):
    with pytest.raises(DamagedRecordError):
        copied(source, tmp_path / "damaged", flip=1)
    with pytest.raises(StoreDamagedError):
        copied(source, tmp_path / "short", leave_out=1)
    assert not (tmp_path / "damaged" / "data.mdb").exists()
    assert not (tmp_path / "short" / "data.mdb").exists()


def test_a_plain_copy_of_the_source_s_file_goes_on_as_a_replica(source, tmp_path):
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "data.mdb").write_bytes((tmp_path / "source" / "data.mdb").read_bytes())
    insert(source, "later", 900)
    with closing(ReplicaStore(tmp_path / "plain")) as plain:
        assert plain.apply([read_block(source, plain.position)]) == 1
        assert rows(plain.writer) == rows(source)


def test_a_reader_that_holds_the_old_file_goes_on_while_a_copy_takes_its_place(source, tmp_path):
    copied(source, tmp_path / "copy").close()
    with EmbeddingStore.open(tmp_path / "copy") as reader:
        before = reader.sequence()
        insert(source, "later", 900)
        copied(source, tmp_path / "copy").close()
        assert reader.sequence() == before
    with EmbeddingStore.open(tmp_path / "copy") as reader:
        assert reader.sequence() == before + 1
