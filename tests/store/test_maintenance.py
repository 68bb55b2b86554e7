"""`llmgr store`: checking, mending, pruning, compacting, saving and restoring a store."""

import json
import signal
import subprocess
import sys
import textwrap

import lmdb
import numpy as np
import pytest
from click.testing import CliRunner

from llmgr_core.errors import LlmgrError
from llmgr_core.store import (
    Delete,
    EmbeddedText,
    EmbeddingStore,
    Encoder,
    Put,
    StoreDamagedError,
    StoreError,
    StoreLockedError,
    StoreWriter,
    fingerprint_key,
    text_hash,
)
from llmgr_core.store.compaction import compact_store
from llmgr_core.store.parquet import export_store, import_store
from llmgr_core.store.pruning import Pruning
from llmgr_core.store.records import item_key, sequence_key
from llmgr_core.store.repair import repair_store
from llmgr_core.store.verification import verify_store
from services.commands.store import command

OLD, NEW = "a1" * 32, "b2" * 32
D = 32


def embedded(text, fingerprint=OLD, dimensions=D):
    vector = np.random.default_rng(len(text) + sum(text.encode())).normal(size=dimensions)
    return EmbeddedText.of(fingerprint, text, vector)


def put(number, text=None, *fingerprints):
    text = text or f"text {number}"
    return Put(f"item-{number}", text.encode(), tuple(embedded(text, one) for one in fingerprints or (OLD,)))


@pytest.fixture
def path(tmp_path):
    """A store of items 0 to 29: item 3 edited twice, item 4 deleted, item 5 under two encoders."""
    path = tmp_path / "store"
    with StoreWriter.open(path) as store:
        store.activate(Encoder(OLD, D, "minilm"))
        store.write([put(number) for number in range(30)])
        store.write([put(3, "edited"), put(3, "edited again"), Delete("item-4"), put(5, None, OLD, NEW)])
    return path


def rows(path, *databases):
    """Every row of a store as bytes."""
    names = databases or ("vectors", "items", "changes")
    with EmbeddingStore.open(path) as store, store.transaction() as transaction:
        return {
            name: [(bytes(key), bytes(value)) for key, value in transaction.cursor(db=store.database(name))] for name in names
        }


def flip(path, database, key, *, drop=False):
    """Flip one bit in the last byte of a record, or drop the record."""
    with lmdb.open(str(path), max_dbs=4) as environment:
        handle = environment.open_db(database.encode())
        with environment.begin(write=True) as transaction:
            row = bytearray(transaction.get(key, db=handle))
            row[-1] ^= 1
            if drop:
                transaction.delete(key, db=handle)
            else:
                transaction.put(key, bytes(row), db=handle)


def vector_key(text, fingerprint=OLD):
    return fingerprint_key(fingerprint) + text_hash(text)


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
            for number in range(200):
                store.write([put(1000 + number)])
            assert store.sequence() == 234
        reader.stdin.write("look\n")
        reader.stdin.flush()
        assert reader.stdout.readline() == "34 30\n"
        reader.stdin.close()
        assert reader.wait(20) == 0
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


# -- export and import ---------------------------------------------------------------------------------------------------------


def test_export_and_import_bring_every_record_back_bit_for_bit(path, tmp_path):
    with StoreWriter.open(path) as store:
        strange = [Put(one, b"\xff\x00{", (embedded("x"),)) for one in ("x" * 5000, "日本", "\x00", "a\nb")]
        store.write([*strange, Delete("never inserted")])
        extreme = np.array([65504, -65504, 6e-8, -0.0] * (D // 4), dtype=np.float16)
        store.write([Put("extreme", b"", (EmbeddedText.of(OLD, "extreme", extreme),))])
        Pruning(store, keep_changes=5).run()
        epoch = store.epoch
    exported = export_store(path, tmp_path / "export")
    assert import_store(tmp_path / "export", tmp_path / "again") == exported
    assert rows(tmp_path / "again") == rows(path)
    assert verify_store(tmp_path / "again").problems == []
    with EmbeddingStore.open(tmp_path / "again") as store, EmbeddingStore.open(path) as original:
        assert store.encoders() == original.encoders()
        assert (store.active_fingerprint(), store.counts()) == (original.active_fingerprint(), original.counts())
        assert store.epoch != epoch


def test_the_files_are_what_other_tools_read(path, tmp_path):
    from pyarrow import parquet

    export_store(path, tmp_path / "export")
    items = parquet.read_table(tmp_path / "export/items.parquet").to_pylist()
    assert {one["item_id"] for one in items} == {f"item-{number}" for number in range(30)}
    vectors = parquet.read_table(tmp_path / f"export/vectors-{OLD[:12]}.parquet").to_pylist()
    of = {one["text_hash"]: one["vector"] for one in vectors}
    np.testing.assert_array_equal(np.array(of[text_hash("text 9")], dtype=np.float16), embedded("text 9").vector)


def test_a_damaged_record_is_not_left_out_of_an_export_in_silence(path, tmp_path):
    flip(path, "items", item_key("item-3"))
    with pytest.raises(StoreDamagedError, match=item_key("item-3").hex()):
        export_store(path, tmp_path / "export")
    assert not (tmp_path / "export").exists()


def test_a_changed_byte_of_an_export_is_noticed_before_anything_is_made(path, tmp_path):
    export_store(path, tmp_path / "export")
    file = tmp_path / "export/changes.parquet"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(StoreDamagedError, match=r"changes\.parquet"):
        import_store(tmp_path / "export", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_neither_writes_over_what_is_there(path, tmp_path):
    export_store(path, tmp_path / "export")
    with pytest.raises(StoreError, match="there already"):
        export_store(path, tmp_path / "export")
    with pytest.raises(StoreError, match="there already"):
        import_store(tmp_path / "export", path)


# -- the commands --------------------------------------------------------------------------------------------------------------


def run(*arguments):
    """What a subcommand prints."""
    result = CliRunner().invoke(command, [str(one) for one in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def test_verify_prints_what_is_wrong_and_fails_and_repair_says_what_it_did(path, capsys):
    flip(path, "vectors", vector_key("text 7"))
    with pytest.raises(LlmgrError, match="2 things are wrong"):
        command.main(["verify", "--store", str(path)], standalone_mode=False)
    printed = json.loads(capsys.readouterr().out)
    assert (printed["sound"], printed["found"]) == (False, {"vector": 1, "missing vector": 1})
    assert printed["findings"][0]["name"] == vector_key("text 7").hex()
    assert run("repair", "--store", path)["embed_again"] == ["item-7"]
    assert run("verify", "--store", path)["sound"]


def test_info_prune_compact_export_and_import_print_json(path, tmp_path):
    facts = run("info", "--store", path)
    assert [(one["active"], one["missing"]) for one in facts["encoders"]] == [(True, 0), (False, 28)]
    assert run("prune", "--store", path, "--forget", NEW[:6])["encoders"] == [NEW]
    sizes = run("compact", "--store", path)
    assert sizes["bytes_after"] <= sizes["bytes_before"]
    assert run("export", "--store", path, tmp_path / "export")["sequence"] == 34
    assert run("import", "--store", tmp_path / "again", tmp_path / "export")["items"] == 30


def test_activating_the_old_encoder_again_is_the_way_back(path):
    assert run("activate", "--store", path, NEW[:8]) == {"store": str(path), "before": OLD, "active": NEW, "missing": 28}
    assert run("activate", "--store", path, OLD)["missing"] == 0
    with pytest.raises(StoreError, match="begin with 'ff'"):
        command.main(["activate", "--store", str(path), "ff"], standalone_mode=False)


def test_readers_are_listed_and_the_places_of_dead_ones_freed(path):
    program = (
        "import os, signal, sys; from pathlib import Path; from llmgr_core.store import EmbeddingStore\n"
        "store = EmbeddingStore.open(Path(sys.argv[1]))\n"
        "with store.transaction(): print('open', flush=True); sys.stdin.read()\n"
    )
    command_line = [sys.executable, "-c", program, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command_line, **pipes) as one, subprocess.Popen(command_line, **pipes) as other:
        assert one.stdout.readline() == other.stdout.readline() == "open\n"
        listed = run("readers", "--store", path)
        transactions = {reader["pid"]: reader["transaction"] for reader in listed["readers"]}
        assert listed["cleared"] == 0
        assert transactions[one.pid] == transactions[other.pid] == listed["transaction"]
        one.kill()
        one.wait()
        listed = run("readers", "--store", path)
        other.stdin.close()
    assert listed["cleared"] == 1
    assert other.pid in [reader["pid"] for reader in listed["readers"]]
    assert one.pid not in [reader["pid"] for reader in listed["readers"]]
