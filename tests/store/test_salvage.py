"""A store made anew from the records of a damaged file."""

import numpy as np
import pytest
from click.testing import CliRunner
from maintained_store import NEW, OLD, make_store, put, rows

from llmgr_core.store import Delete, EmbeddingStore, StoreDamagedError, StoreError, StoreWriter, text_hash
from llmgr_core.store.carving import carve
from llmgr_core.store.salvage import salvage_store
from llmgr_core.store.verification import verify_store
from services.commands.store import command

PAGE = 4096


@pytest.fixture
def path(tmp_path):
    """A store of a thousand items and several dozen pages, with edits and deletions."""
    make_store(tmp_path / "store")
    with StoreWriter.open(tmp_path / "store") as store:
        store.write([put(number) for number in range(30, 1000)])
        store.write([put(number, f"edited {number}") for number in range(100, 200)])
        store.write([Delete(f"item-{number}") for number in range(200, 220)])
    return tmp_path / "store"


def test_every_record_of_a_sound_file_is_found(path):
    before = rows(path)
    carved = carve(path / "data.mdb")
    assert dict(before["vectors"]).items() <= carved.vectors.items()
    with EmbeddingStore.open(path) as store:
        assert {item.item_id for item in store.items()} == {one.item_id for one in carved.items.values() if not one.deleted}
        assert all(carved.items[item.item_id] == item for item in store.items())


def test_only_what_stood_on_the_damaged_pages_is_lost_and_it_is_named(path):
    with EmbeddingStore.open(path) as store:
        live = {item.item_id: item for item in store.items()}
        gone = {item_id for item_id in store.snapshot(OLD).item_ids if item_id not in live}
    file = path / "data.mdb"
    content = bytearray(file.read_bytes())
    generator = np.random.default_rng(5)
    # Three pages of rubbish, and the heads of all others: no tree is left.
    for page in range(2, len(content) // PAGE):
        content[page * PAGE] ^= 0xFF
    for page in (20, 41, 60):
        content[page * PAGE : (page + 1) * PAGE] = generator.bytes(PAGE)
    file.write_bytes(content)
    with pytest.raises(StoreDamagedError, match="--salvage"):
        EmbeddingStore.open(path)
    report = salvage_store(path)
    assert verify_store(path).problems == []
    assert (path / "data.mdb.damaged").read_bytes() == bytes(content)
    with StoreWriter.open(path) as store:
        assert store.active_fingerprint() == OLD
        assert {one.fingerprint for one in store.encoders()} == {OLD, NEW}
        named = set(report.insert_again)
        for item_id, item in live.items():
            stored = store.get_item(item_id)
            assert item_id in named or (stored.record, stored.deleted) == (item.record, False)
        assert len(named) < 100
        assert set(store.missing_vectors(OLD)) >= set(report.embed_again) - named
        assert all(store.get_item(one) is None or store.get_item(one).deleted or one in named for one in gone)
        assert store.write([put(5000)])[0].changed
        assert store.find_vector(OLD, text_hash("text 5000")) is not None


def test_a_file_without_a_record_stays_where_it_is(tmp_path):
    (tmp_path / "data.mdb").write_bytes(b"\0" * 20 * PAGE)
    with pytest.raises(StoreError, match="no record"):
        salvage_store(tmp_path)
    assert (tmp_path / "data.mdb").stat().st_size == 20 * PAGE


def test_the_command_says_what_it_did(path):
    result = CliRunner().invoke(command, ["repair", "--salvage", "--store", str(path)], catch_exceptions=False)
    assert "was made anew" in result.output
    assert verify_store(path).problems == []
