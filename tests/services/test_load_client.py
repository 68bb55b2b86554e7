"""The load client keeps to its plan whatever the server does, and says of every call what became of it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from patience import PATIENCE, free_port

from services.contract import ranking_service_pb2 as messages
from services.load.connection import HEADERS, LARGEST_REQUEST, PREFACE, RST_STREAM, Http2Connection
from services.load.header_blocks import status_in
from services.load.open_loop import run, run_apart
from services.load.outcomes import Outcomes
from services.load.plan import LoadPlan, Method, poisson_times

RANK_SESSION = "/llmgr.v1.RankingService/RankSession"


@pytest.fixture
def serve_bytes() -> Iterator[Callable[..., Method]]:
    """Starts a gRPC server whose one method is a function of bytes, on one thread."""
    servers = []

    def serve(answer: Callable[[bytes, grpc.ServicerContext], bytes]) -> Method:
        handler = grpc.method_handlers_generic_handler(
            "test.Service", {"Call": grpc.unary_unary_rpc_method_handler(lambda raw, context: answer(raw, context))}
        )
        server = grpc.server(ThreadPoolExecutor(1), handlers=(handler,))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return Method("Call", "127.0.0.1", port, "/test.Service/Call")

    yield serve
    for server in servers:
        server.stop(0)


def test_moments_are_those_of_a_poisson_process():
    random = np.random.default_rng(1)
    times = poisson_times(200.0, 100.0, random, start=5.0)
    assert (np.diff(times) >= 0).all()
    assert 5.0 <= times[0] < times[-1] < 105.0
    # 20,000 on average with a standard deviation of 141; gaps are exponential: as wide as they are long.
    assert abs(len(times) - 20_000) < 5 * 141
    gaps = np.diff(times)
    assert gaps.std() / gaps.mean() == pytest.approx(1.0, abs=0.05)
    assert (gaps > gaps.mean()).mean() == pytest.approx(np.exp(-1.0), abs=0.02)
    assert len(np.unique([len(poisson_times(50.0, 1.0, random)) for _ in range(20)])) > 5


def test_a_stall_is_in_the_figures_of_every_call_that_was_due_in_it(serve_bytes):
    """The very thing a client that waits for its answer before it asks again does not see."""
    stalls: list[tuple[float, float]] = []

    def answer(raw, context):
        if raw == b"stall":
            began = time.monotonic()
            time.sleep(0.6)
            stalls.append((began, time.monotonic()))
        return b""

    def stall_in(outcomes: Outcomes) -> tuple[float, float]:
        """Begin and end in seconds after the start."""
        began, ended = stalls.pop()
        return began - outcomes.started_at, ended - outcomes.started_at

    method = serve_bytes(answer)
    times = np.arange(0.0, 1.5, 0.005)
    requests = [b"stall" if number == 100 else b"go" for number in range(len(times))]
    # On a busy machine the client itself may stand still, so that few calls are due, or sent, while the server does.
    for _ in range(10):
        outcomes = run(LoadPlan.of_one(method, times, requests, timeout=PATIENCE))
        assert outcomes.statuses() == {"OK": len(times)}
        began, ended = stall_in(outcomes)
        during = (outcomes.due > began) & (outcomes.due < ended)
        # Each waited from when it was due until the server went on.
        assert (outcomes.milliseconds[during] >= (ended - outcomes.due[during]) * 1e3).all()
        if during.sum() >= 20 and (outcomes.sent[during] < ended).mean() > 0.5:
            break
    else:
        pytest.fail("calls were not on their way while the server stood still")
    assert outcomes.summary()["p90_ms"] > 300
    closed = run(LoadPlan.of_one(method, np.zeros(len(times)), requests, timeout=PATIENCE, in_flight=1))
    began, ended = stall_in(closed)
    assert ((closed.sent < ended) & (closed.finished > began)).sum() == 1


def test_moments_that_others_note_fall_where_they_belong(serve_bytes):
    seen = []
    method = serve_bytes(lambda raw, context: seen.append(time.monotonic()) or b"")
    outcomes = run(LoadPlan.of_one(method, np.arange(0.0, 0.2, 0.02), [b"go"] * 10, timeout=PATIENCE))
    answered = np.array(seen) - outcomes.started_at
    assert outcomes.statuses() == {"OK": 10}
    assert (outcomes.sent < answered).all()
    assert (answered < outcomes.finished).all()


def test_a_call_in_a_late_client_is_timed_from_when_it_was_due():
    due, sent, finished = np.array([0.0, 1.0]), np.array([0.5, 1.0]), np.array([0.6, 1.1])
    outcomes = Outcomes(("Call",), np.zeros(2, dtype=int), due, sent, finished, np.zeros(2, dtype=int), 2.0, 0.0)
    assert outcomes.milliseconds == pytest.approx([600.0, 100.0])
    assert outcomes.summary()["client_late_p99_ms"] > 490


def test_every_status_is_read_as_a_grpc_client_reads_it(serve_bytes):
    codes = list(grpc.StatusCode)

    def answer(raw, context):
        context.set_code(codes[raw[0]])
        context.set_details("with a reason" * raw[0])
        context.set_trailing_metadata((("some-bin", bytes(range(256))), ("x-request-id", "visit")))
        return b"reply"

    method = serve_bytes(answer)
    requests = [bytes([number]) for number in range(len(codes))] * 3
    outcomes = run(LoadPlan.of_one(method, np.zeros(len(requests)), requests, timeout=PATIENCE), keep_replies=True)
    assert outcomes.status.tolist() == [code.value[0] for code in codes] * 3
    assert outcomes.replies[codes.index(grpc.StatusCode.OK)] == b"reply"


@pytest.mark.parametrize(
    ("block", "status"),
    [
        (b"\x00\x0bgrpc-status\x018", 8),
        (b"\x40\x0bgrpc-status\x0214", 14),
        (b"\x3f\xe1\x1f\x88\x5f\x10application/grpc\x40\x0bgrpc-status\x010", 0),
        (b"\x00\x88\x9a\xca\xc8\xb2\x12\x34\xda\x8f\x010", 0),
        (b"\x00\x0bgrpc-status\x82\x08\x3f", 10),
        (b"\x00\x0bgrpc-status\x01x", 2),
        (b"\x88\x00\x0cgrpc-message\x02hi", None),
    ],
)
def test_statuses_in_every_spelling_of_a_header(block, status):
    assert status_in(block) == status


def test_a_call_without_an_answer_ends_at_its_deadline_and_the_server_hears_of_it(serve_bytes):
    came, cancelled, released = threading.Event(), threading.Event(), threading.Event()

    def answer(raw, context):
        came.set()
        if not context.add_callback(cancelled.set):
            cancelled.set()
        released.wait(2 * PATIENCE)
        return b""

    method = serve_bytes(answer)
    # On a busy machine a deadline may pass before any call has come to its method.
    for timeout in (0.2, 2.0, 20.0):
        outcomes = run(LoadPlan.of_one(method, np.zeros(3), [b""], timeout=timeout))
        assert outcomes.statuses() == {"DEADLINE_EXCEEDED": 3}
        assert (outcomes.milliseconds >= timeout * 1e3).all()
        if came.is_set():
            break
    assert cancelled.wait(PATIENCE)
    released.set()


def test_a_server_that_is_not_there_is_unavailable_and_delays_nobody():
    method = Method("Call", "127.0.0.1", free_port(), "/test.Service/Call")
    outcomes = run(LoadPlan.of_one(method, np.linspace(0.0, 0.3, 50), [b""], timeout=PATIENCE))
    assert outcomes.statuses() == {"UNAVAILABLE": 50}


def test_calls_go_on_over_connections_that_the_server_renews(serve_ranking):
    server = serve_ranking(max_connection_age_s=1.0)
    request = messages.RankSessionRequest(item_ids=["item-1"]).SerializeToString()
    method = Method.at("RankSession", server.address, RANK_SESSION)
    outcomes = run(LoadPlan.of_one(method, np.linspace(0.0, 3.0, 150), [request], timeout=PATIENCE, connections=1))
    assert outcomes.statuses() == {"OK": 150}


def test_replies_are_what_any_client_gets(serve_ranking):
    server = serve_ranking()
    request = messages.RankSessionRequest(item_ids=["item-1", "item-7"], top_k=5)
    method = Method.at("RankSession", server.address, RANK_SESSION)
    outcomes = run(LoadPlan.of_one(method, np.zeros(20), [request.SerializeToString()], timeout=PATIENCE), keep_replies=True)
    with grpc.insecure_channel(server.address) as channel:
        expected = channel.unary_unary(RANK_SESSION)(request.SerializeToString(), timeout=PATIENCE)
    wanted = messages.RankSessionResponse.FromString(expected).items
    assert all(messages.RankSessionResponse.FromString(reply).items == wanted for reply in outcomes.replies)


def test_no_more_calls_are_in_flight_than_a_closed_loop_allows(serve_bytes):
    outcomes = run(LoadPlan.of_one(serve_bytes(lambda raw, context: b""), np.zeros(100), [b"x"], timeout=PATIENCE, in_flight=3))
    starts, ends = np.sort(outcomes.sent), np.sort(outcomes.finished)
    assert all((starts <= moment).sum() - (ends < moment).sum() <= 3 for moment in starts)


def test_large_requests_and_replies_fit_through_the_windows(serve_bytes):
    method = serve_bytes(lambda raw, context: raw * 8)
    requests = [bytes([number % 256]) * 15_000 for number in range(60)]
    outcomes = run(LoadPlan.of_one(method, np.zeros(60), requests, timeout=PATIENCE, connections=1), keep_replies=True)
    assert outcomes.replies == [request * 8 for request in requests]


def test_two_methods_at_once_are_told_apart(serve_bytes):
    fast, refused = serve_bytes(lambda raw, context: b""), serve_bytes(refuse)
    plans = [
        LoadPlan.of_one(fast, np.linspace(0.0, 0.3, 40), [b""], timeout=PATIENCE),
        LoadPlan.of_one(refused, np.linspace(0.1, 0.2, 20), [b""]),
    ]
    merged = LoadPlan.merged([plans[0], LoadPlan.of_one(Method("Other", *place(refused)), plans[1].times, [b""])])
    assert (np.diff(merged.times) >= 0).all()
    outcomes = run_apart(merged)
    assert outcomes.of_method("Call").statuses() == {"OK": 40}
    assert outcomes.of_method("Other").statuses() == {"RESOURCE_EXHAUSTED": 20}
    assert len(outcomes.between(0.1, 0.2)) < 40


def refuse(raw, context):
    context.set_code(grpc.StatusCode.RESOURCE_EXHAUSTED)
    return b""


def place(method: Method) -> tuple[str, int, str]:
    return method.host, method.port, method.path


def test_a_call_that_is_given_up_before_it_was_sent_is_not_reset():
    """A server that is told of a stream which was never begun hangs up on all calls of the connection (RFC 9113, 5.1)."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        connection = Http2Connection("127.0.0.1", listening.getsockname()[1])
        # The server lets 64 KiB through, and never says that it has read them.
        for call in range(6):
            connection.begin(call, "/a.B/C", bytes(LARGEST_REQUEST), 1.0)
        for call in (1, 5):
            connection.cancel(call)
        assert connection.outstanding == 4
        connection.flush()
        connection.socket.shutdown(socket.SHUT_WR)
        server, _ = listening.accept()
        with server, server.makefile("rb") as stream:
            sent = stream.read()[len(PREFACE) :]
        connection.close()
    begun, reset = [], []
    while sent:
        length, kind, stream_id = int.from_bytes(sent[:3]), sent[3], int.from_bytes(sent[5:9])
        {HEADERS: begun, RST_STREAM: reset}.get(kind, []).append(stream_id)
        sent = sent[9 + length :]
    assert begun == [1, 3, 5, 7]
    assert reset == [3]
