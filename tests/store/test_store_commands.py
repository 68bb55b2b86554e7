"""Saving and restoring a store, and what `llmgr store` prints."""

import json
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from damaged_records import flip
from maintained_store import NEW, OLD, D, embedded, make_store, rows, vector_key

from llmgr_core.errors import LlmgrError
from llmgr_core.store import (
    Delete,
    EmbeddedText,
    EmbeddingStore,
    Put,
    StoreDamagedError,
    StoreError,
    StoreWriter,
    text_hash,
)
from llmgr_core.store.parquet import export_store, import_store
from llmgr_core.store.pruning import Pruning
from llmgr_core.store.records import item_key
from llmgr_core.store.verification import verify_store
from services.commands.store import command


@pytest.fixture
def path(tmp_path):
    make_store(tmp_path / "store")
    return tmp_path / "store"


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
