"""What the embedding service answers, and when the language model runs."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from embedding_fixture import DIMENSIONS, FINGERPRINT, embedding_service, measured_service
from patience import PATIENCE, wait_until
from rounds import rounds

from llmgr_core.data.item import Item
from llmgr_core.store import EmbeddingStore, text_hash
from services.client import EmbeddedItem, RejectedItem, ServiceError
from services.contract import embedding_service_pb2 as messages
from services.contract import embedding_service_pb2_grpc


@pytest.fixture
def service(tmp_path):
    with measured_service(tmp_path / "store") as running:
        yield running


@pytest.fixture
def client(service):
    return service[0]


@pytest.fixture
def model(service):
    return service[1]


@pytest.fixture
def measured(service):
    return service[2]


def test_a_new_item_is_embedded_stored_and_answered_with_its_place_in_the_log(client, model, tmp_path):
    reply = client.embed(Item("a", title="rose cream"), return_vector=True)
    assert (reply.item_id, reply.sequence, reply.cached, reply.model_version) == ("a", 1, False, FINGERPRINT)
    np.testing.assert_allclose(reply.vector, model.vector("rose cream").astype(np.float16))
    assert reply.timing.model_ms > 0
    assert reply.timing.total_ms >= reply.timing.model_ms + reply.timing.store_ms
    with EmbeddingStore.open(tmp_path / "store") as store:
        np.testing.assert_array_equal(store.find_vector(FINGERPRINT, text_hash("rose cream")), reply.vector)


def test_an_unchanged_item_keeps_its_sequence_and_runs_nothing(client, model):
    first = client.embed(Item("a", title="rose"))
    again = client.embed(Item("a", title="rose"))
    assert (again.sequence, again.cached) == (first.sequence, True)
    assert model.texts == ["rose"]
    assert client.info().sequence == 1


def test_a_known_text_under_a_new_id_is_written_without_the_model(client, model):
    client.embed(Item("a", title="rose"))
    reply = client.embed(Item("b", title="rose"), return_vector=True)
    assert (reply.sequence, reply.cached) == (2, True)
    assert model.texts == ["rose"]
    np.testing.assert_array_equal(reply.vector, client.get("a", return_vector=True).vector)


def test_an_edit_gets_a_new_sequence_and_a_record_edit_that_keeps_the_text_no_forward(client, model):
    client.embed(Item("a", title="rose"))
    assert client.embed(Item("a", title="lily")).sequence == 2
    branded = client.embed(Item("a", title="lily", brand="Acme"))
    assert (branded.sequence, branded.cached) == (3, True)
    assert client.get("a").item == Item("a", title="lily", brand="Acme")
    assert model.texts == ["rose", "lily"]


def test_nothing_is_recomputed_after_a_restart(tmp_path):
    with embedding_service(tmp_path) as (client, _):
        client.embed(Item("a", title="rose"))
    with embedding_service(tmp_path) as (client, model):
        assert client.embed(Item("a", title="rose")).sequence == 1
        assert client.embed(Item("b", title="rose")).cached
        assert "rose" not in model.texts


def test_an_item_comes_back_as_it_was_inserted(client):
    item = Item(
        "ünï/1",
        title="Röse <b>cream</b>",
        description="for dry skin",
        brand="Acme",
        categories=(("Beauty", "Skin"), ("Gifts",)),
        attributes={"colour": "red", "size": "50 ml"},
    )
    client.embed(item)
    stored = client.get("ünï/1", return_vector=True)
    assert stored.item == item
    assert (stored.sequence, stored.model_version) == (1, FINGERPRINT)
    assert stored.vector.shape == (DIMENSIONS,)
    assert abs(stored.updated_at - time.time()) < 600
    assert client.get("ünï/1").vector is None


def test_a_deleted_item_is_gone_until_it_is_inserted_again(client, model):
    client.embed(Item("a", title="rose"))
    deleted = client.delete("a")
    assert (deleted.sequence, deleted.existed) == (2, True)
    with pytest.raises(ServiceError) as caught:
        client.get("a")
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.NOT_FOUND, "ITEM_NOT_FOUND")
    assert (client.delete("a").sequence, client.delete("a").existed) == (2, False)
    revived = client.embed(Item("a", title="rose"))
    assert (revived.sequence, revived.cached) == (3, True)
    assert model.texts == ["rose"]


def test_an_id_that_only_a_bundle_knows_can_be_withdrawn(client):
    assert client.delete("never inserted").existed is False
    assert client.info().sequence == 1
    assert client.info().items == 0


def test_a_hundred_concurrent_duplicates_cost_one_forward(client, model, measured):
    model.running.clear()
    with ThreadPoolExecutor(100) as pool:
        replies = [pool.submit(client.embed, Item(f"item-{number}", title="the same text")) for number in range(100)]
        assert model.entered.wait(PATIENCE)
        wait_until(lambda: measured("calls_running", method="EmbedItem") == 100)
        model.running.set()
        outcomes = [reply.result() for reply in replies]
    assert model.texts == ["the same text"]
    assert sorted(outcome.sequence for outcome in outcomes) == list(range(1, 101))


def test_texts_that_wait_share_a_forward(client, model, measured):
    model.running.clear()
    with ThreadPoolExecutor(20) as pool:
        first = pool.submit(client.embed, Item("first", title="first"))
        assert model.entered.wait(PATIENCE)
        rest = [pool.submit(client.embed, Item(f"i{number}", title=f"text {number}")) for number in range(16)]
        wait_until(lambda: measured("queued_texts") == 16)
        model.running.set()
        for one in (first, *rest):
            one.result()
    assert [len(batch) for batch in model.batches] == [1, 16]


def test_a_stream_answers_every_item_once_and_bad_ones_alone(client, model, measured):
    items = [Item(f"i{number}", title=f"text {number % 40}") for number in range(300)]
    items[7] = Item("no-text")
    items[8] = Item("i8", title="nul \0")
    outcomes = {outcome.index: outcome for outcome in client.embed_many(items)}
    assert sorted(outcomes) == list(range(300))
    refused = {index: one for index, one in outcomes.items() if isinstance(one, RejectedItem)}
    assert sorted(refused) == [7, 8]
    assert refused[8].field == "item.title"
    assert refused[7].code == "INVALID_ARGUMENT"
    for index, one in outcomes.items():
        if isinstance(one, EmbeddedItem):
            assert one.item_id == items[index].item_id
    assert len(model.texts) == 40
    assert client.info().items == 298
    codes = {code: measured("stream_items_total", code=code) for code in ("OK", "INVALID_ARGUMENT", "INTERNAL")}
    assert codes == {"OK": 298, "INVALID_ARGUMENT": 2, "INTERNAL": 0}


def test_the_last_edit_of_an_item_in_a_stream_is_the_one_that_stays(client, model):
    client.embed(Item("warm", title="known"))
    # The first edit needs the model, the second does not: it must wait for the first all the same.
    edits = [Item("a", title="unknown text"), Item("a", title="known")]
    outcomes = sorted(client.embed_many(edits), key=lambda one: one.index)
    assert outcomes[0].sequence < outcomes[1].sequence
    assert client.get("a").item.title == "known"


def test_a_stream_larger_than_the_queue_is_not_refused(tmp_path):
    with embedding_service(tmp_path, None, "embed.max_queued_texts=2", "embed.max_stream_items=50") as (client, _):
        outcomes = list(client.embed_many(Item(f"i{number}", title=f"text {number}") for number in range(200)))
    assert all(isinstance(one, EmbeddedItem) for one in outcomes)


def waiting_stream(client, model, measured) -> tuple[threading.Thread, int]:
    """A stream of a hundred texts of which the model, held, has the first batch; how many wait."""
    model.running.clear()
    bulk = threading.Thread(
        target=lambda: list(client.embed_many(Item(f"b{number}", title=f"bulk {number}") for number in range(100)))
    )
    bulk.start()
    assert model.entered.wait(PATIENCE)
    waiting = 100 - len(model.batches[0])
    wait_until(lambda: measured("queued_texts") == waiting)
    return bulk, waiting


def test_single_calls_go_before_a_stream_that_waits(tmp_path):
    overrides = ("embed.max_stream_items=100", "engine.batch_tokens=64")
    with measured_service(tmp_path, None, *overrides) as (client, model, measured):
        bulk, waiting = waiting_stream(client, model, measured)
        with ThreadPoolExecutor(1) as pool:
            single = pool.submit(client.embed, Item("single", title="single"))
            wait_until(lambda: measured("queued_texts") == waiting + 1)
            model.running.set()
            single.result()
        bulk.join()
        place = next(number for number, batch in enumerate(model.batches) if "single" in batch)
    assert place == 1
    assert model.batches[1][0] == "single"


@pytest.mark.parametrize("item_id", ["single", "b90"])
def test_a_text_of_a_stream_that_a_single_call_wants_too_goes_before_the_stream(tmp_path, item_id):
    overrides = ("embed.max_stream_items=100", "embed.max_queued_texts=2")
    with measured_service(tmp_path, None, *overrides) as (client, model, measured):
        bulk, waiting = waiting_stream(client, model, measured)
        with ThreadPoolExecutor(4) as pool:
            singles = []
            # The first and the third want a stream's text; there is room among the single calls for two.
            asked = [(item_id, "bulk 90", 0), ("new", "new", 1), ("full", "bulk 95", 1)]
            for number, (single, title, queued) in enumerate(asked, 1):
                singles.append(pool.submit(client.embed, Item(single, title=title)))
                wait_until(lambda number=number: measured("calls_running", method="EmbedItem") == number)
                wait_until(lambda queued=queued: measured("queued_texts") == waiting + queued)
            model.running.set()
            assert [one.result().item_id for one in singles] == [item_id, "new", "full"]
        bulk.join()
    assert model.batches[1][:2] == ["bulk 90", "new"]
    assert model.texts.count("bulk 90") == model.texts.count("bulk 95") == 1


def test_watching_tells_the_past_then_the_present(client):
    client.embed(Item("a", title="rose"))
    client.delete("a")
    seen, enough = [], threading.Event()

    def watch():
        for change in client.changes(return_vector=True):
            seen.append(change)
            if len(seen) == 3:
                enough.set()
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    wait_until(lambda: len(seen) == 2)
    client.embed(Item("b", title="lily"))
    assert enough.wait(PATIENCE)
    watcher.join()
    assert [(one.sequence, one.item_id, one.deleted) for one in seen] == [(1, "a", False), (2, "a", True), (3, "b", False)]
    assert seen[0].vector is None, "a is deleted now"
    assert seen[2].vector.shape == (DIMENSIONS,)
    assert seen[2].head_sequence == 3


def test_watching_goes_on_from_a_sequence_and_refuses_one_of_another_store(client):
    for number in range(5):
        client.embed(Item(f"i{number}", title="rose"))
    watched = client.changes(after_sequence=3, store_epoch=client.info().store_epoch)
    assert [next(watched).sequence, next(watched).sequence] == [4, 5]
    watched.close()
    with pytest.raises(ServiceError) as caught:
        next(client.changes(store_epoch="0" * 32))
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "OTHER_STORE")
    with pytest.raises(ServiceError) as caught:
        next(client.changes(after_sequence=99))
    assert (caught.value.reason, caught.value.metadata) == ("SEQUENCE_AHEAD", {"sequence": "5"})


def test_info_tells_what_the_server_is_and_takes(client):
    client.embed(Item("a", title="rose"))
    info = client.info()
    assert (info.model_version, info.engine, info.dimensions) == (FINGERPRINT, "controlled", DIMENSIONS)
    assert (info.items, info.vectors, info.sequence) == (1, 1, 1)
    assert len(info.store_epoch) == 32
    assert info.limits["max_item_id_bytes"] == 512
    assert info.limits["max_text_bytes"] == 262_144


@rounds(10)
def test_fault_deadline_drops_the_text_that_still_waits(client, model, measured):
    model.running.clear()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(client.embed, Item("first", title="first"))
        assert model.entered.wait(PATIENCE)
        # On a busy machine a deadline may pass before the text has even come.
        while not measured("dropped_texts_total"):
            with pytest.raises(ServiceError) as caught:
                client.embed(Item("late", title="late"), timeout=0.3)
            assert caught.value.code == grpc.StatusCode.DEADLINE_EXCEEDED
        wait_until(lambda: measured("calls_running", method="EmbedItem") == 1)
        model.running.set()
        first.result()
    client.embed(Item("next", title="next"))
    assert "late" not in model.texts
    with pytest.raises(ServiceError):
        client.get("late")


@rounds(10)
def test_fault_cancelled_caller_does_not_take_the_text_from_others_who_want_it(client, model, measured):
    model.running.clear()
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(client.embed, Item("first", title="first"))
        assert model.entered.wait(PATIENCE)
        patient = pool.submit(client.embed, Item("patient", title="shared"))
        wait_until(lambda: measured("queued_texts") == 1)
        with pytest.raises(ServiceError):
            client.embed(Item("hasty", title="shared"), timeout=0.3)
        # The server has heard of it.
        wait_until(lambda: measured("calls_running", method="EmbedItem") == 2)
        model.running.set()
        first.result()
        assert patient.result().sequence == 2


def test_fault_overload_sheds_at_once_and_says_when_to_come_back(tmp_path):
    with measured_service(tmp_path, None, "embed.max_queued_texts=3") as (client, model, measured):
        model.running.clear()
        with ThreadPoolExecutor(8) as pool:
            waiting = [pool.submit(client.embed, Item("i0", title="text 0"))]
            assert model.entered.wait(PATIENCE)
            waiting += [pool.submit(client.embed, Item(f"i{number}", title=f"text {number}")) for number in range(1, 4)]
            wait_until(lambda: measured("queued_texts") == 3)
            with pytest.raises(ServiceError) as caught:
                client.embed(Item("one too many", title="one too many"))
            assert not any(one.done() for one in waiting)
            # What needs no language model is served all the same.
            assert client.info().items == 0
            model.running.set()
            assert all(one.result().sequence for one in waiting)
        assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
        assert 0 < caught.value.retry_after <= 30
        assert client.embed(Item("one too many", title="one too many")).sequence


def test_a_bare_stub_made_from_the_proto_files_is_enough(client):
    with grpc.insecure_channel(client.address) as channel:
        stub = embedding_service_pb2_grpc.EmbeddingServiceStub(channel)
        reply, call = stub.EmbedItem.with_call(
            messages.EmbedItemRequest(item={"item_id": "a", "title": "rose"}), metadata=[("x-request-id", "mine")]
        )
        assert reply.sequence == 1
        assert call.code() == grpc.StatusCode.OK
