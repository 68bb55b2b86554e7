"""Bits that flip on the disk: a damaged file is refused by name, a damaged record is skipped, counted and embedded again."""

from __future__ import annotations

import json
import struct
import subprocess
import sys

import grpc
import pytest
from bundle_fixture import DIMENSION, free_port_settings, make_catalogue, put
from bundle_fixture import FINGERPRINT as BUNDLE_FINGERPRINT
from click.testing import CliRunner
from damaged_records import flip
from embedding_fixture import FINGERPRINT, ControlledModel, embedding_service, encoder_around, settings_with
from patience import PATIENCE, wait_until

from llmgr_core.data.item import Item
from llmgr_core.store import EmbeddingStore, StoreDamagedError, StoreWriter, fingerprint_key, text_hash
from llmgr_core.store.records import item_key
from llmgr_core.store.structure import structure_problems
from llmgr_core.store.verification import verify_store
from services.client import RankingClient, ServiceError
from services.commands.store import command
from services.embedding import background_work
from services.embedding.background import serve_in_background
from services.ranking.server import RankingServer

PAGE = 4096
CLASSES = {"branch": 0x01, "leaf": 0x02, "overflow": 0x04}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A bundle, and a store with pages of every kind: large records, several commits, pages given back."""
    catalogue = make_catalogue(tmp_path_factory.mktemp("sound"))
    with catalogue.writer() as writer:
        for number in range(3):
            put(writer, "item-0", 1000 + number)
        writer.put("long", json.dumps({"title": "x" * 3 * PAGE}).encode())
    return catalogue


@pytest.fixture
def copied(sound, tmp_path):
    """The same in a place of its own, as (catalogue, data file)."""
    import shutil

    shutil.copytree(sound.bundle, tmp_path / "bundle")
    shutil.copytree(sound.store, tmp_path / "store")
    return type(sound)(tmp_path / "bundle", tmp_path / "store"), tmp_path / "store/data.mdb"


def damage_page(path, page_class):
    """Flip a bit in the head of a page of a class that the store stands on; returns what is found."""
    content = path.read_bytes()
    if page_class == "meta":
        changed = bytearray(content)
        changed[16] ^= 0xFF
        path.write_bytes(changed)
        return structure_problems(path)
    for page in range(2, len(content) // PAGE):
        (flags,) = struct.unpack_from("<H", content, page * PAGE + 10)
        if flags != CLASSES.get(page_class, CLASSES["leaf"]):
            continue
        changed = bytearray(content)
        # The first byte is the page's own number; of the free list, what it lists.
        changed[page * PAGE + (0 if page_class != "free list" else PAGE - 2)] ^= 0x40
        path.write_bytes(changed)
        found = structure_problems(path)
        if any(problem.page_class == page_class for problem in found):
            return found
    raise AssertionError(f"no {page_class} page is in use")


@pytest.mark.parametrize("page_class", ["meta", "branch", "leaf", "overflow", "free list"])
def test_fault_corrupt_db_is_refused_by_both_servers_and_named(copied, page_class):
    """Without Environment.require_sound, a damaged branch or leaf page ends the process, or gives another item's vector."""
    catalogue, file = copied
    assert verify_store(catalogue.store).sound
    assert any(problem.page_class == page_class for problem in damage_page(file, page_class))
    with pytest.raises(StoreDamagedError, match=str(file)):
        RankingServer(catalogue.bundle, catalogue.store, free_port_settings()).start()
    encoder = encoder_around(ControlledModel(), BUNDLE_FINGERPRINT)
    with pytest.raises(StoreDamagedError, match=str(file)), serve_in_background(encoder, catalogue.store, settings_with()):
        pass
    # Nothing is left locked.
    assert f"{page_class} page" in verify_store(catalogue.store).found
    result = CliRunner().invoke(command, ["verify", "--store", str(catalogue.store)])
    assert isinstance(result.exception, StoreDamagedError)
    assert f"{page_class} page" in json.loads(result.output)["found"]


@pytest.mark.parametrize("keep", [0.9, 0.5, 0.05, 0.0])
def test_fault_truncated_db_is_refused_and_never_a_signal(copied, keep):
    """Reading beyond the end of the file through LMDB is a SIGBUS."""
    catalogue, file = copied
    size = file.stat().st_size
    with file.open("r+b") as opened:
        opened.truncate(int(size * keep) // PAGE * PAGE)
    for kind in (EmbeddingStore, StoreWriter):
        with pytest.raises(StoreDamagedError, match=str(file)):
            kind.open(catalogue.store)


def test_fault_corrupt_record_of_a_vector_is_counted_and_embedded_again_by_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(background_work, "LOOK_AGAIN_S", 0.02)
    with embedding_service(tmp_path) as (client, _):
        list(client.embed_many([Item(f"i{number}", title=f"text {number}") for number in range(20)]))
    flip(tmp_path, "vectors", fingerprint_key(FINGERPRINT) + text_hash("text 7"))
    with embedding_service(tmp_path) as (client, model):
        wait_until(lambda: client.get("i7", return_vector=True).vector is not None)
        assert model.texts == ["text 7"]
        # A reader that loaded without it hears of it.
        assert client.info().sequence == 21
    assert verify_store(tmp_path).problems == []


def test_an_unexpected_error_does_not_end_the_work_in_the_background(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(background_work, "LOOK_AGAIN_S", 0.02)
    with embedding_service(tmp_path) as (client, _):
        client.embed(Item("a", title="rose"))
    flip(tmp_path, "vectors", fingerprint_key(FINGERPRINT) + text_hash("rose"))
    missing_vectors, failures = StoreWriter.missing_vectors, [RuntimeError("a fault of ours")]

    def failing_once(store, encoder, **options):
        if failures:
            raise failures.pop()
        return missing_vectors(store, encoder, **options)

    monkeypatch.setattr(StoreWriter, "missing_vectors", failing_once)
    with embedding_service(tmp_path) as (client, _):
        wait_until(lambda: client.get("a", return_vector=True).vector is not None)
    assert "a fault of ours" in caplog.text


def test_fault_corrupt_record_of_an_item_is_data_loss_until_it_is_inserted_again(tmp_path):
    with embedding_service(tmp_path) as (client, _):
        list(client.embed_many([Item(f"i{number}", title=f"text {number}") for number in range(20)]))
    flip(tmp_path, "items", item_key("i7"))
    with embedding_service(tmp_path) as (client, model):
        with pytest.raises(ServiceError) as caught:
            client.get("i7")
        assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.DATA_LOSS, "DAMAGED_RECORD")
        assert client.get("i8").sequence == 9
        assert client.embed(Item("i7", title="text 7")).sequence == 21
        assert client.get("i7").item.title == "text 7"
        assert not model.texts
    assert verify_store(tmp_path).problems == []


def test_fault_corrupt_record_costs_ranking_that_items_text_alone(copied):
    catalogue, _ = copied
    flip(catalogue.store, "vectors", fingerprint_key(BUNDLE_FINGERPRINT) + text_hash("text 5"))
    with (
        RankingServer(catalogue.bundle, catalogue.store, free_port_settings()) as server,
        RankingClient(server.address, timeout=PATIENCE) as client,
    ):
        assert len(client.rank(["item-1"], top_k=50).items) == 50


def test_a_compacted_store_is_taken_over_by_a_running_ranking_server(copied):
    """A ranker that went on with the old file would never hear of a new item."""
    from llmgr_core.store.compaction import compact_store

    catalogue, _ = copied
    with (
        RankingServer(catalogue.bundle, catalogue.store, free_port_settings()) as server,
        RankingClient(server.address, timeout=PATIENCE) as client,
    ):
        compact_store(catalogue.store)
        # A process of its own: the ranking server of this one holds the store open for reading.
        program = (
            "import sys, numpy; from pathlib import Path; from llmgr_core.store import EmbeddedText, StoreWriter\n"
            "text = EmbeddedText.of(sys.argv[2], 'brand new', numpy.ones(int(sys.argv[3])))\n"
            "with StoreWriter.open(Path(sys.argv[1])) as store: print(store.put('brand-new', b'{}', text).sequence)\n"
        )
        arguments = [str(catalogue.store), BUNDLE_FINGERPRINT, str(DIMENSION)]
        done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
        sequence = int(done.stdout)

        def seen():
            ranking = client.rank(["item-1"])
            assert ranking.items
            return ranking.sequence >= sequence

        wait_until(seen)
        assert "brand-new" not in client.rank(["brand-new"]).unknown_item_ids
