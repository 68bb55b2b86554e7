"""What a store keeps, in what order, and what its readers see."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

from llmgr_core.store import (
    Delete,
    EmbeddedText,
    EmbeddingStore,
    Encoder,
    Operation,
    Put,
    StoreError,
    StoreLockedError,
    StoreWriter,
    VectorError,
    fingerprint_key,
    text_hash,
)

TUNED, UNTUNED = "a1" * 32, "b2" * 32
D = 8


def vector_of(text, dimensions=D):
    return np.random.default_rng(abs(hash(text)) % 2**32).normal(size=dimensions).astype(np.float16)


def embedded(text, fingerprint=TUNED, dimensions=D):
    return EmbeddedText.of(fingerprint, text, vector_of(text, dimensions))


def insert_delete_and_edit(store):
    """Changes 1 to 4: a and b in, a out, b edited."""
    inserts = [Put("a", b"", (embedded("x"),)), Put("b", b"", (embedded("y"),))]
    store.write([*inserts, Delete("a"), Put("b", b"2", (embedded("z"),))])


@pytest.fixture
def store(tmp_path):
    with StoreWriter.open(tmp_path / "store") as store:
        yield store


def test_an_item_and_its_vector_come_back(store):
    written = store.put("a", b"record", embedded("rose"))
    item = store.get_item("a")
    assert (written.sequence, written.changed, written.existed) == (1, True, False)
    assert (item.record, item.sequence, item.deleted) == (b"record", 1, False)
    assert item.texts == {fingerprint_key(TUNED): text_hash("rose")}
    vectors, present = store.read_vectors(["a", "unknown"], TUNED)
    assert present.tolist() == [True, False]
    np.testing.assert_array_equal(vectors[0], vector_of("rose"))
    assert not vectors[1].any()


def test_an_unchanged_item_writes_nothing_and_keeps_its_sequence(store):
    store.put("a", b"record", embedded("rose"))
    before = store.transaction_id()
    again = store.put("a", b"record", embedded("rose"))
    assert (again.sequence, again.changed, again.existed) == (1, False, True)
    assert store.sequence() == 1
    assert store.transaction_id() == before


def test_a_text_is_stored_once_whatever_items_have_it(store):
    store.write([Put(f"item-{number}", b"", (embedded("rose"),)) for number in range(10)])
    assert store.counts() == {"vectors": 1, "items": 10, "changes": 10, "live": 10}
    np.testing.assert_array_equal(store.find_vector(TUNED, text_hash("rose")), vector_of("rose"))
    assert store.find_vector(UNTUNED, text_hash("rose")) is None
    assert store.known_texts(TUNED, [text_hash("rose"), text_hash("lily")]) == [True, False]


def test_a_changed_record_gets_a_new_sequence_and_drops_vectors_of_the_old_text(store):
    store.put("a", b"one", embedded("rose"), embedded("rose", UNTUNED))
    store.put("a", b"two", embedded("lily"))
    item = store.get_item("a")
    assert item.sequence == 2
    assert item.texts == {fingerprint_key(TUNED): text_hash("lily")}


def test_a_second_encoder_adds_its_vector_to_an_unchanged_record(store):
    store.put("a", b"one", embedded("rose"))
    store.put("a", b"one", embedded("rose, raw", UNTUNED, dimensions=4))
    assert set(store.get_item("a").texts) == {fingerprint_key(TUNED), fingerprint_key(UNTUNED)}
    assert store.dimensions(TUNED) == D
    assert store.dimensions(UNTUNED) == 4
    assert store.read_vectors(["a"], UNTUNED)[1].all()


def test_deleting_leaves_a_tombstone_and_inserting_again_revives(store):
    store.put("a", b"one", embedded("rose"))
    deleted = store.delete("a")
    assert (deleted.sequence, deleted.existed, deleted.changed) == (2, True, True)
    assert store.get_item("a").deleted
    assert not store.read_vectors(["a"], TUNED)[1].any()
    assert store.delete("a").sequence == 2
    assert store.counts()["live"] == 0
    revived = store.put("a", b"one", embedded("rose"))
    assert (revived.sequence, revived.changed, revived.existed) == (3, True, False)
    assert store.counts() == {"vectors": 1, "items": 1, "changes": 3, "live": 1}


def test_an_item_that_was_never_inserted_can_be_deleted(store):
    deleted = store.delete("bundle-only")
    assert (deleted.sequence, deleted.existed) == (1, False)
    assert store.get_item("bundle-only").deleted


def test_the_change_log_tells_everything_in_order(store):
    store.write(
        [Put("a", b"", (embedded("x"),)), Put("b", b"", (embedded("y"),)), Delete("a"), Put("b", b"2", (embedded("z"),))]
    )
    log = [(change.sequence, change.item_id, change.operation) for change in store.changes()]
    assert log == [
        (1, "a", Operation.UPSERT),
        (2, "b", Operation.UPSERT),
        (3, "a", Operation.DELETE),
        (4, "b", Operation.UPSERT),
    ]
    assert [change.sequence for change in store.changes(since=2)] == [3, 4]
    assert list(store.changes(since=4)) == []


def test_updates_give_each_item_once_in_its_newest_state(store):
    store.write(
        [Put("a", b"", (embedded("x"),)), Put("b", b"", (embedded("y"),)), Delete("a"), Put("b", b"2", (embedded("z"),))]
    )
    updates = store.updates(0, TUNED)
    assert [(one.item_id, one.sequence, one.deleted) for one in updates.updates] == [("a", 3, True), ("b", 4, False)]
    np.testing.assert_array_equal(updates.updates[1].vector, vector_of("z"))
    assert (updates.sequence, updates.behind) == (4, False)
    nothing = store.updates(4, TUNED)
    assert (nothing.updates, nothing.sequence, nothing.behind) == ([], 4, False)


def test_updates_in_pieces_reach_the_same_state(store):
    store.write([Put(f"i{number % 7}", str(number).encode(), (embedded(f"t{number}"),)) for number in range(50)])
    state, since, behind = {}, 0, True
    while behind:
        part = store.updates(since, TUNED, limit=6)
        state |= {one.item_id: one.vector.tobytes() for one in part.updates}
        since, behind = part.sequence, part.behind
    snapshot = store.snapshot(TUNED)
    assert state == {one: row.tobytes() for one, row in zip(snapshot.item_ids, snapshot.vectors, strict=True)}


def test_a_snapshot_holds_live_items_tombstones_and_where_it_was_taken(store):
    store.write([Put("a", b"", (embedded("x"),)), Put("b", b"", (embedded("y", UNTUNED),)), Delete("gone")])
    snapshot = store.snapshot(TUNED)
    assert snapshot.item_ids == ["a", "b", "gone"]
    assert snapshot.present.tolist() == [True, False, False]
    assert snapshot.sequences.tolist() == [1, 2, 3]
    assert snapshot.deleted.tolist() == [False, False, True]
    assert (snapshot.sequence, snapshot.transaction) == (3, store.transaction_id())


def test_a_snapshot_has_the_rows_asked_for_first_and_the_others_behind_them(store):
    store.write([Put(name, b"", (embedded(name),)) for name in ("a", "b", "c")] + [Delete("b")])
    snapshot = store.snapshot(TUNED, ["c", "unknown", "b"])
    assert snapshot.item_ids == ["c", "unknown", "b", "a"]
    assert snapshot.present.tolist() == [True, False, True, True]
    assert snapshot.sequences.tolist() == [3, 0, 4, 1]
    assert snapshot.deleted.tolist() == [False, False, True, False]
    for name, vector in zip(snapshot.item_ids, snapshot.vectors, strict=True):
        np.testing.assert_array_equal(vector, 0.0 if name == "unknown" else vector_of(name))


def test_a_tombstone_keeps_its_last_vector_for_sessions_that_hold_it(store):
    store.write([Put("a", b"", (embedded("x"),)), Delete("a")])
    snapshot = store.snapshot(TUNED)
    assert (snapshot.present.tolist(), snapshot.deleted.tolist()) == ([True], [True])
    np.testing.assert_array_equal(snapshot.vectors[0], vector_of("x"))
    (update,) = store.updates(0, TUNED).updates
    assert update.deleted
    np.testing.assert_array_equal(update.vector, vector_of("x"))


def test_a_bad_operation_undoes_its_whole_group(store):
    with pytest.raises(VectorError, match="4 numbers"):
        store.write([Put("a", b"", (embedded("x"),)), Put("b", b"", (embedded("y", dimensions=4),))])
    assert store.get_item("a") is None
    assert store.sequence() == 0


def test_vectors_that_are_not_finite_are_refused_however_they_come():
    bad = np.array([1, np.nan], dtype=np.float16)
    with pytest.raises(VectorError):
        EmbeddedText(TUNED, text_hash("x"), bad)
    with pytest.raises(VectorError):
        EmbeddedText.of(TUNED, "x", bad)


def test_ids_of_any_length_and_script_are_kept(store):
    ids = ["é" * 300, "x" * 511, "x" * 5000, "日本", " ", "\x00", "a\nb"]
    store.write([Put(one, b"", (embedded("t"),)) for one in ids])
    assert sorted(item.item_id for item in store.items()) == sorted(ids)
    assert store.read_vectors(ids, TUNED)[1].all()


def test_a_full_map_grows_by_itself(tmp_path):
    with StoreWriter.open(tmp_path / "store", map_bytes=64 << 10) as store:
        for start in range(0, 2000, 50):
            store.write([Put(f"i{n}", b"r" * 100, (embedded(f"t{n}", dimensions=64),)) for n in range(start, start + 50)])
        assert store.sequence() == 2000
        assert store.snapshot(TUNED).present.all()


def test_a_reader_in_another_process_follows_a_map_that_grows(tmp_path):
    path = tmp_path / "store"
    program = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        from llmgr_core.store import EmbeddingStore
        store = EmbeddingStore.open(Path({str(path)!r}))
        print("open", flush=True)
        for line in sys.stdin:
            print(store.sequence(), int(store.snapshot({TUNED!r}).present.sum()), flush=True)
    """)
    with StoreWriter.open(path, map_bytes=64 << 10) as store:
        store.put("first", b"", embedded("first", dimensions=64))
        with subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as reader:
            assert reader.stdout.readline() == "open\n"
            for round_number in range(4):
                store.write(
                    [
                        Put(f"{round_number}-{n}", b"r" * 500, (embedded(f"{round_number}-{n}", dimensions=64),))
                        for n in range(200)
                    ]
                )
                reader.stdin.write("look\n")
                reader.stdin.flush()
                expected = 1 + 200 * (round_number + 1)
                assert reader.stdout.readline().split() == [str(expected), str(expected)]
            reader.stdin.close()
            assert reader.wait() == 0


def test_a_second_writer_is_refused_and_told_who_writes(tmp_path):
    with StoreWriter.open(tmp_path) as store:
        with pytest.raises(StoreLockedError, match=r"process \d+") as caught:
            StoreWriter.open(tmp_path)
        assert caught.value.address is None
        store.announce("127.0.0.1:5005")
        with pytest.raises(StoreLockedError, match=r"127\.0\.0\.1:5005") as caught:
            StoreWriter.open(tmp_path)
        assert caught.value.address == "127.0.0.1:5005"
    StoreWriter.open(tmp_path).close()


def test_readers_of_the_writing_process_share_its_store(tmp_path):
    with StoreWriter.open(tmp_path) as writer:
        with EmbeddingStore.open(tmp_path) as reader:
            writer.put("a", b"", embedded("x"))
            assert reader.sequence() == 1
            assert reader.epoch == writer.epoch
        assert writer.sequence() == 1
    with EmbeddingStore.open(tmp_path) as reader, pytest.raises(StoreError, match="open for reading"):
        StoreWriter.open(tmp_path)


def test_everything_survives_closing(tmp_path):
    with StoreWriter.open(tmp_path) as store:
        store.put("a", b"r", embedded("x"))
        store.activate(Encoder(TUNED, D, "minilm"))
        epoch = store.epoch
    with EmbeddingStore.open(tmp_path) as store:
        assert (store.epoch, store.sequence(), store.active_fingerprint()) == (epoch, 1, TUNED)
        assert store.get_item("a").record == b"r"


def test_vectors_of_another_model_are_an_error_that_names_both(store):
    store.register(Encoder(TUNED, D, "minilm"))
    with pytest.raises(StoreError, match=f"no vectors of encoder {UNTUNED[:12]}.*{TUNED[:12]} \\(minilm\\)"):
        store.snapshot(UNTUNED)
    with pytest.raises(StoreError, match="same fingerprint"):
        store.register(Encoder(TUNED, D + 1))


def test_the_transaction_number_moves_with_every_write_and_only_then(store):
    numbers = [store.transaction_id()]
    for number in range(3):
        store.put(f"i{number}", b"", embedded("x"))
        numbers.append(store.transaction_id())
        assert store.transaction_id() == numbers[-1]
    assert numbers == sorted(set(numbers))


def test_importing_the_store_needs_only_lmdb_and_numpy():
    program = (
        "import sys, llmgr_core.store; "
        "print([m for m in ('torch', 'transformers', 'pyarrow', 'grpc', 'google.protobuf', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
