"""The client stays inside its deadline, comes back when it is told to, and gives up where coming back is of no use."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from bundle_fixture import free_port_settings
from patience import PATIENCE, free_port

from llmgr_core.data.item import Item
from llmgr_core.errors import InputError
from services.client import EmbeddingClient, RankingClient, ServiceError
from services.client.calls import RetryPolicy, call_with_retries
from services.client.conversion import vector_from_message
from services.contract import vector_pb2
from services.item_messages import item_from_message, item_message
from services.ranking.server import RankingServer
from services.server.errors import DETAILS_KEY, RequestError, invalid_field, overloaded


class Refusal(grpc.RpcError, grpc.Call):
    """What grpc raises for a status with details, without a server."""

    def __init__(self, error: RequestError) -> None:
        self._error = error

    def code(self):
        return self._error.code

    def details(self):
        return self._error.message

    def trailing_metadata(self):
        return ((DETAILS_KEY, self._error.details()),)

    def initial_metadata(self):
        return ()

    def is_active(self):
        return False

    def time_remaining(self):
        return None

    def cancel(self):
        return False

    def add_callback(self, callback):
        return False


class Method:
    """Fails as told, then answers; remembers when it was called."""

    def __init__(self, *failures: RequestError) -> None:
        self.failures = list(failures)
        self.calls: list[float] = []

    def __call__(self, request, timeout, metadata):
        self.calls.append(time.monotonic())
        if self.failures:
            raise Refusal(self.failures.pop(0))
        return f"reply to {request}"


def unavailable() -> RequestError:
    return RequestError(grpc.StatusCode.UNAVAILABLE, "restarting", "RESTARTING")


def test_an_unavailable_server_is_asked_again():
    method = Method(unavailable(), unavailable())
    assert call_with_retries(method, "x", PATIENCE, RetryPolicy()) == "reply to x"
    assert len(method.calls) == 3


def test_fault_overload_a_call_that_the_server_s_grpc_reset_is_made_again():
    method = Method(RequestError(grpc.StatusCode.CANCELLED, "CANCELLED", "RESET"))
    assert call_with_retries(method, "x", PATIENCE, RetryPolicy(first_pause=0.001)) == "reply to x"


def test_a_call_that_its_own_client_closed_is_not_made_again():
    reached, release = threading.Event(), threading.Event()

    class NeverAnswers(grpc.GenericRpcHandler):
        def service(self, handler_call_details):
            def wait(request, context):
                reached.set()
                release.wait(PATIENCE)
                return b""

            return grpc.unary_unary_rpc_method_handler(wait)

    with ThreadPoolExecutor(1) as threads, ThreadPoolExecutor(1) as pool:
        server = grpc.server(threads)
        server.add_generic_rpc_handlers((NeverAnswers(),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        client = RankingClient(f"127.0.0.1:{port}", timeout=PATIENCE)
        calling = pool.submit(client.rank, ["item-1"])
        assert reached.wait(PATIENCE)
        client.close()
        with pytest.raises(ServiceError) as raised:
            calling.result(PATIENCE)
        release.set()
        server.stop(0).wait()
    assert raised.value.code is grpc.StatusCode.CANCELLED
    assert (raised.value.attempts, raised.value.refused_unread, raised.value.exit_code) == (1, False, 2)


def test_retry_info_is_honoured():
    method = Method(overloaded("full", retry_after=0.2))
    call_with_retries(method, "x", PATIENCE, RetryPolicy(first_pause=0.001))
    assert method.calls[1] - method.calls[0] >= 0.2


def test_exhaustion_without_retry_info_is_final():
    method = Method(RequestError(grpc.StatusCode.RESOURCE_EXHAUSTED, "message too large", "TOO_LARGE"))
    with pytest.raises(ServiceError) as raised:
        call_with_retries(method, "x", PATIENCE, RetryPolicy())
    assert raised.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len(method.calls) == 1


def test_a_bad_request_is_final_and_names_the_field():
    method = Method(invalid_field("top_k", "too many"))
    with pytest.raises(ServiceError) as raised:
        call_with_retries(method, "x", PATIENCE, RetryPolicy())
    assert raised.value.violations[0].field == "top_k"
    assert len(method.calls) == 1


def test_attempts_are_counted():
    method = Method(*(unavailable() for _ in range(10)))
    with pytest.raises(ServiceError):
        call_with_retries(method, "x", PATIENCE, RetryPolicy(attempts=3, first_pause=0.001))
    assert len(method.calls) == 3


def test_no_pause_reaches_beyond_the_deadline():
    method = Method(overloaded("full", retry_after=10 * PATIENCE))
    started = time.monotonic()
    with pytest.raises(ServiceError) as raised:
        call_with_retries(method, "x", PATIENCE, RetryPolicy())
    assert time.monotonic() - started < PATIENCE
    assert len(method.calls) == 1
    assert raised.value.retry_after == 10 * PATIENCE


def test_a_server_that_is_not_there_is_unavailable_with_a_hint():
    once = RetryPolicy(attempts=1)
    with RankingClient("127.0.0.1:1", timeout=PATIENCE, retry=once) as client, pytest.raises(ServiceError) as raised:
        client.rank(["a"])
    assert raised.value.code is grpc.StatusCode.UNAVAILABLE
    assert "llmgr serve" in str(raised.value)


def test_a_client_survives_a_restart_of_its_server(catalogue):
    first = RankingServer(catalogue.bundle, catalogue.store, free_port_settings(ranking_port=free_port()))
    with RankingClient(first.address, timeout=2 * PATIENCE, retry=RetryPolicy(attempts=100)) as client:
        with first:
            before = client.rank(["item-1"])
        again = free_port_settings(ranking_port=first.port)
        with RankingServer(catalogue.bundle, catalogue.store, again):
            assert client.rank(["item-1"]).items == before.items


def test_the_wrong_service_behind_an_address_is_said_to_be_wrong(serve_ranking):
    with EmbeddingClient(serve_ranking().address, timeout=PATIENCE) as client, pytest.raises(ServiceError) as raised:
        client.info()
    assert raised.value.code is grpc.StatusCode.UNIMPLEMENTED
    assert "embedding and ranking" in str(raised.value)


def test_items_survive_the_way_there_and_back():
    item = Item("id", "Title", "Text", "Brand", (("A", "B"), ("C",)), {"colour": "red"})
    assert item_from_message(item_message(item)) == item
    assert item_from_message(item_message(Item("id"))) == Item("id")


def test_fault_bad_utf8_of_an_item_is_refused_before_it_is_sent():
    with pytest.raises(InputError, match="cannot be sent"):
        item_message(Item("id", title="\ud800"))


def test_a_vector_whose_length_contradicts_its_bytes_is_refused():
    message = vector_pb2.Vector(data=b"\0" * 6, type=vector_pb2.VECTOR_TYPE_FLOAT16, dimensions=4)
    with pytest.raises(InputError, match="6 bytes for 4 numbers"):
        vector_from_message(message)
