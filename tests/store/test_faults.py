"""What a store does when the machine below it does not do its part."""

import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import lmdb
import numpy as np
import pytest
from damaged_records import flip

from llmgr_core.store import EmbeddedText, EmbeddingStore, Put, StoreError, StoreFullError, StoreWriter, text_hash
from llmgr_core.store.records import fingerprint_key, item_key, sequence_key
from llmgr_core.store.verification import verify_store

FINGERPRINT = "c3" * 32


def put_of(number, size=64, record=b"record"):
    vector = np.full(size, number % 100, dtype=np.float16)
    return Put(f"item-{number}", record, (EmbeddedText.of(FINGERPRINT, f"text {number}", vector),))


@pytest.fixture
def filled(tmp_path):
    """Path of a store with items 0 to 9."""
    path = tmp_path / "store"
    with StoreWriter.open(path) as store:
        store.write([put_of(number) for number in range(10)])
    return path


# -- damaged records -----------------------------------------------------------------------------------------------------------


def test_fault_damaged_vector_is_never_returned_and_is_named(filled, caplog):
    key = fingerprint_key(FINGERPRINT) + text_hash("text 3")
    flip(filled, "vectors", key)
    with EmbeddingStore.open(filled) as store:
        vectors, present = store.read_vectors(["item-2", "item-3"], FINGERPRINT)
        assert present.tolist() == [True, False]
        assert not vectors[1].any()
        assert store.find_vector(FINGERPRINT, text_hash("text 3")) is None
        assert store.known_texts(FINGERPRINT, [text_hash("text 3")]) == [False]
        assert store.damage[0].database == "vectors"
        assert store.damage[0].name == key.hex()
        assert store.damaged_count == 3
    assert key.hex() in caplog.text


def test_a_damaged_vector_is_mended_by_embedding_the_text_again(filled):
    flip(filled, "vectors", fingerprint_key(FINGERPRINT) + text_hash("text 3"))
    with StoreWriter.open(filled) as store:
        before = store.sequence()
        mended = store.put("item-3", b"record", put_of(3).texts[0])
        # A reader that loaded without the vector hears of it.
        assert mended.changed
        assert [change.item_id for change in store.changes(since=before)] == ["item-3"]
        assert store.find_vector(FINGERPRINT, text_hash("text 3")) is not None
    assert verify_store(filled).sound


def test_fault_damaged_item_is_skipped_named_and_mended_by_inserting_it_again(filled):
    flip(filled, "items", item_key("item-3"))
    with StoreWriter.open(filled) as store:
        assert store.get_item("item-3") is None
        assert len(store.snapshot(FINGERPRINT).item_ids) == 9
        assert ("items", "item-3") in {(one.database, one.name) for one in store.damage}
        assert store.write([put_of(3)])[0].sequence == 11
        assert len(store.snapshot(FINGERPRINT).item_ids) == 10
    assert verify_store(filled).sound


def test_fault_damaged_change_is_skipped_and_the_ones_after_it_are_not(filled):
    flip(filled, "changes", sequence_key(4))
    with EmbeddingStore.open(filled) as store:
        assert [change.sequence for change in store.changes()] == [1, 2, 3, 5, 6, 7, 8, 9, 10]
        assert store.updates(0, FINGERPRINT).sequence == 10
        assert [one.name for one in store.damage] == ["4"]


@pytest.mark.parametrize(
    ("database", "key", "named"),
    [
        ("vectors", fingerprint_key(FINGERPRINT) + text_hash("text 3"), "vector"),
        ("items", item_key("item-3"), "item 'item-3'"),
        ("changes", sequence_key(4), "change 4"),
    ],
)
def test_verification_finds_a_flipped_bit_and_names_the_record(filled, database, key, named):
    assert verify_store(filled).sound
    flip(filled, database, key)
    report = verify_store(filled)
    assert any(named in problem and "checksum" in problem for problem in report.problems)


# -- files that are no store ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"no database", b"\x00" * 8192, b"hello" * 4000])
@pytest.mark.parametrize("kind", [EmbeddingStore, StoreWriter])
def test_a_file_that_is_no_lmdb_is_refused_by_name(tmp_path, content, kind):
    (tmp_path / "data.mdb").write_bytes(content)
    with pytest.raises(StoreError, match=str(tmp_path)):
        kind.open(tmp_path)


@pytest.mark.parametrize("kind", [EmbeddingStore, StoreWriter])
def test_an_lmdb_of_something_else_is_refused_and_left_as_it_is(tmp_path, kind):
    with lmdb.open(str(tmp_path), max_dbs=4) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"their key", b"their value")
    with pytest.raises(StoreError, match="something else"):
        kind.open(tmp_path)
    with lmdb.open(str(tmp_path), max_dbs=4) as environment, environment.begin() as transaction:
        assert transaction.get(b"their key") == b"their value"
        assert transaction.get(b"meta") is None


def test_a_store_of_another_schema_is_refused_and_says_which(filled):
    with lmdb.open(str(filled), max_dbs=4) as environment:
        handle = environment.open_db(b"meta")
        with environment.begin(write=True) as transaction:
            transaction.put(b"schema", b"99", db=handle)
    for kind in (EmbeddingStore, StoreWriter):
        with pytest.raises(StoreError, match="schema 99"):
            kind.open(filled)


def test_no_store_is_an_error_that_says_how_to_make_one(tmp_path):
    with pytest.raises(StoreError, match="llmgr embed"):
        EmbeddingStore.open(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


# -- a full disk ---------------------------------------------------------------------------------------------------------------


def fill_until_full(store, start=0):
    """Insert until the disk is full; how many items were acknowledged."""
    number = start
    try:
        while number < start + 20_000:
            store.write([put_of(number, size=512)])
            number += 1
    except StoreFullError:
        return number
    raise AssertionError("the disk never was full")


def test_fault_disk_full_loses_nothing_acknowledged_and_heals(small_disk):
    path = small_disk / "store"
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * (2 << 20))
    with StoreWriter.open(path) as store:
        acknowledged = fill_until_full(store)
        assert acknowledged > 50
        with pytest.raises(StoreFullError):
            store.write([put_of(acknowledged, size=512)])
        # Reading goes on while nothing can be written.
        assert len(store.snapshot(FINGERPRINT).item_ids) == acknowledged
        ballast.unlink()
        assert store.write([put_of(acknowledged, size=512)])[0].sequence == acknowledged + 1
    report = verify_store(path)
    assert (report.problems, report.items) == ([], acknowledged + 1)


def test_fault_disk_full_by_a_file_size_limit(tmp_path):
    path = tmp_path / "store"
    with StoreWriter.open(path) as store:
        store.write([put_of(0, size=512)])
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (512 << 10, before[1]))
        try:
            acknowledged = fill_until_full(store, start=1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert store.write([put_of(acknowledged, size=512)])[0].sequence == acknowledged + 1
    assert verify_store(path).sound


# -- a writer that is killed ---------------------------------------------------------------------------------------------------


def kill_while_inserting(path, seed, seconds):
    """Run the inserting program, kill it, and return its acknowledgements as (item, sequence, record) in order."""
    program = Path(__file__).with_name("insert_until_killed.py")
    with subprocess.Popen([sys.executable, str(program), str(path), str(seed)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        # The first acknowledgement is waited for: a busy machine may need longer than any delay to come so far.
        first = process.stdout.readline()
        timer = threading.Timer(seconds, process.send_signal, [signal.SIGKILL])
        timer.start()
        lines = (first + process.stdout.read()).split("\n")
        timer.join()
        assert process.wait() == -signal.SIGKILL
    # What follows the last newline was cut off by the kill: nobody can have read it as an acknowledgement.
    return [(item, int(sequence), record) for item, sequence, record in (line.split("|") for line in lines[:-1])]


def check_nothing_was_lost(path, acknowledged):
    report = verify_store(path)
    assert report.problems == []
    with EmbeddingStore.open(path) as store:
        log = {change.sequence: change.item_id for change in store.changes()}
        for item_id, sequence, record in acknowledged:
            assert log[sequence] == item_id
            stored = store.get_item(item_id)
            assert stored.sequence >= sequence
            if stored.sequence == sequence:
                assert stored.deleted == (record == "-")
                if not stored.deleted:
                    assert stored.record.decode() == record
                    assert store.find_vector(FINGERPRINT, text_hash(record)) is not None


def kill_rounds(path, rounds):
    generator = np.random.default_rng(0)
    total = 0
    for number in range(rounds):
        acknowledged = kill_while_inserting(path, number, float(generator.uniform(0.0, 0.25)))
        check_nothing_was_lost(path, acknowledged)
        total += len(acknowledged)
    assert total >= rounds


def test_fault_kill_9_writer_loses_nothing_acknowledged(tmp_path):
    kill_rounds(tmp_path / "store", 10)


@pytest.mark.slow
def test_fault_kill_9_writer_two_hundred_times(tmp_path):
    kill_rounds(tmp_path / "store", 200)


def test_fault_killed_reader_does_not_keep_old_pages_for_ever(filled):
    """Another reader stays: LMDB itself clears the table of readers where nobody else has the store open."""
    opened = "import os, signal, sys; from pathlib import Path; from llmgr_core.store import EmbeddingStore\n"
    opened += "store = EmbeddingStore.open(Path(sys.argv[1]))\n"
    stays = opened + "print('open', flush=True)\nsys.stdin.read()"
    dies = opened + "with store.transaction(): os.kill(os.getpid(), signal.SIGKILL)"
    command = [sys.executable, "-c", stays, str(filled)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "open\n"
        with subprocess.Popen([sys.executable, "-c", dies, str(filled)]) as dead:
            assert dead.wait() == -signal.SIGKILL
        with lmdb.open(str(filled), max_dbs=4) as environment:
            assert str(dead.pid) in environment.readers()
        with StoreWriter.open(filled) as store:
            assert dead.pid not in [pid for pid, _ in store.readers()]
        other.stdin.close()


def test_fault_kill_9_writer_leaves_no_lock(tmp_path):
    kill_while_inserting(tmp_path, 1, 0.05)
    StoreWriter.open(tmp_path).close()


def test_a_process_of_another_container_with_the_same_number_is_told_from_a_broken_store(filled):
    """LMDB holds the byte of its lock file at a reader's process number; the first processes of two containers are both 1."""
    code = "import fcntl, sys; file = open(sys.argv[1], 'r+b'); fcntl.lockf(file, fcntl.LOCK_EX, 1, int(sys.argv[2]))\n"
    code += "print('held', flush=True)\nsys.stdin.read()"
    command = [sys.executable, "-c", code, str(filled / "lock.mdb"), str(os.getpid())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as namesake:
        assert namesake.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match=f"another container, by a process whose number is {os.getpid()}") as refused:
            EmbeddingStore.open(filled)
        assert "share their process numbers" in refused.value.hint
        namesake.stdin.close()
    EmbeddingStore.open(filled).close()


def test_closing_waits_for_who_still_reads(filled):
    """LMDB would end the process: another thread's transaction reads from memory that is gone."""
    store = EmbeddingStore.open(filled)
    reading, over = threading.Event(), threading.Event()
    found = []

    def read():
        with store.transaction() as transaction:
            reading.set()
            assert over.wait(60)
            found.append(store.newest_in(transaction))

    reader, closer = threading.Thread(target=read), threading.Thread(target=store.close)
    reader.start()
    assert reading.wait(60)
    closer.start()
    closer.join(0.2)
    waited = closer.is_alive()
    over.set()
    reader.join()
    closer.join()
    assert (waited, found) == (True, [10])
    with pytest.raises(lmdb.Error):
        store.sequence()
