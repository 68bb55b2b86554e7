"""Bytes that mean no good, in numbers: each method of both servers, which run as processes of their own.

Half of the frames are random bytes, half are valid messages with bytes changed, cut, doubled or put in; the long form sends
102,000. Whatever comes, the answer is a status meant for clients; the server neither dies nor grows, and works right after as
it did before.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import grpc
import numpy as np
import pytest
from bundle_fixture import make_catalogue
from embedding_server_process import server_process
from patience import PATIENCE
from server_process import places

from llmgr_core.data.item import Item
from services.client import EmbeddingClient, RankingClient
from services.client.local_server import ServerProcess
from services.contract import embedding_service_pb2 as embedding
from services.contract import ranking_service_pb2 as ranking
from services.load.open_loop import run
from services.load.plan import LoadPlan, Method

ALLOWED = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"}
REFUSED = grpc.StatusCode.INVALID_ARGUMENT
# Nobody ends WatchChanges but its client.
ENDLESS = "WatchChanges"
ENDLESS_SECONDS = 0.5
WARM_UP_SHARE = 0.2
LARGEST_GROWTH = 0.05
ODD_TEXTS = ("", "\0", "a" * 600, "é" * 257, "𝕏", "\u202e", "\ufeff", "<br>", "'; DROP", "{}", "%s%n", "../..")
ODD_BYTES = (b"\xff\xfe", b"\xed\xa0\x80", b"\xc3", b"\xff" * 9 + b"\x01", b"\x0a\xff\xff\xff\xff\x07", b"\0" * 64)
RANKING, EMBEDDING = "RankingService", "EmbeddingService"


def text(draw: random.Random) -> str:
    return draw.choice(ODD_TEXTS) if draw.random() < 0.3 else f"item-{draw.randrange(150)}"


def texts(draw: random.Random, most: int) -> list[str]:
    return [text(draw) for _ in range(draw.randrange(most))]


def session(draw: random.Random) -> ranking.RankSessionRequest:
    return ranking.RankSessionRequest(
        item_ids=texts(draw, 40),
        top_k=draw.choice((0, 1, 20, 1001, 2**32 - 1)),
        candidate_ids=texts(draw, 20),
        exclude_item_ids=texts(draw, 5),
        include_seen=draw.choice((None, True, False)),
        # Any other is waited for, for as long as a server waits.
        min_sequence=0,
    )


def item(draw: random.Random) -> dict[str, object]:
    paths = [{"names": texts(draw, 3)} for _ in range(draw.randrange(3))]
    attributes = {text(draw): text(draw) for _ in range(draw.randrange(3))}
    return {
        "item_id": text(draw),
        "title": text(draw),
        "description": text(draw) * draw.choice((1, 1, 20)),
        "categories": paths,
        "attributes": attributes,
    }


VALID: dict[tuple[str, str], Callable[[random.Random], object]] = {
    (RANKING, "RankSession"): session,
    (RANKING, "RankSessions"): lambda draw: ranking.RankSessionsRequest(sessions=[session(draw) for _ in range(3)]),
    (RANKING, "GetInfo"): session,
    (EMBEDDING, "EmbedItem"): lambda draw: embedding.EmbedItemRequest(item=item(draw), return_vector=True),
    (EMBEDDING, "EmbedItems"): lambda draw: embedding.EmbedItemsRequest(item=item(draw)),
    (EMBEDDING, "GetItem"): lambda draw: embedding.GetItemRequest(item_id=text(draw), return_vector=True),
    (EMBEDDING, "DeleteItem"): lambda draw: embedding.DeleteItemRequest(item_id=text(draw)),
    (EMBEDDING, ENDLESS): lambda draw: embedding.WatchChangesRequest(after_sequence=draw.randrange(99), store_epoch=text(draw)),
    (EMBEDDING, "GetInfo"): lambda draw: embedding.EmbedItemRequest(item=item(draw)),
}


def mutated(raw: bytes, draw: random.Random) -> bytes:
    """A message with a few of its bytes changed, lost, doubled, or others put among them."""
    out = bytearray(raw)
    for _ in range(draw.randrange(5)):
        place = draw.randrange(len(out) + 1)
        change = draw.randrange(4)
        if change == 0 and place < len(out):
            out[place] = draw.randrange(256)
        elif change == 1:
            del out[place : place + draw.choice((1, 8, 10_000))]
        elif change == 2:
            out[place:place] = out[place : place + draw.choice((1, 8, 200))]
        else:
            out[place:place] = draw.choice(ODD_BYTES)
    return bytes(out)


def frames(service: str, method: str, count: int, seed: int) -> list[bytes]:
    draw = random.Random(f"{service} {method} {seed}")
    longest = (8, 64, 500, 4000)
    return [
        draw.randbytes(draw.randrange(draw.choice(longest)))
        if number % 2
        else mutated(VALID[service, method](draw).SerializeToString(), draw)[:15_000]
        for number in range(count)
    ]


def send(address: str, service: str, count: int, seed: int) -> int:
    """Send so many frames to each method, 16 at a time; returns how many were sent."""
    sent = 0
    for method in (method for of, method in VALID if of == service):
        messages = frames(service, method, count, seed)
        endless = method == ENDLESS
        target = Method.at(method, address, f"/llmgr.v1.{service}/{method}")
        outcomes = run(
            LoadPlan.of_one(
                target,
                np.zeros(count),
                messages,
                timeout=ENDLESS_SECONDS if endless else 4 * PATIENCE,
                in_flight=64 if endless else 16,
            ),
            keep_replies=method == "EmbedItems",
        )
        allowed = ALLOWED | ({"DEADLINE_EXCEEDED"} if endless else set())
        # No process has run out of anything, and none has said INTERNAL or UNKNOWN.
        assert outcomes.statuses().keys() <= allowed, (method, outcomes.statuses())
        sent += sum(outcomes.statuses().values())
        if method == "EmbedItems":
            replies = [embedding.EmbedItemsResponse.FromString(reply) for reply in outcomes.replies]
            assert all(reply.WhichOneof("outcome") for reply in replies)
            codes = {reply.failure.code for reply in replies if reply.HasField("failure")}
            assert codes == {REFUSED.value[0]}, codes
        else:
            assert REFUSED.name in outcomes.statuses(), "the frames were too good"
    return sent


def own_bytes(pid: int) -> int:
    """Memory that a process has made for itself (RssAnon): without the store's pages, which grow with what is inserted."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) * 1024


class Target(NamedTuple):
    """A server that is sent frames, and a check that it still does its work."""

    service: str
    address: str
    pid: int
    works: Callable[[], bool]


@pytest.fixture(params=[RANKING, EMBEDDING])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    if request.param == RANKING:
        catalogue = make_catalogue(tmp_path)
        limits = ("max_wait_ms=60000", "max_batch_queue=64", "max_sequence_wait_s=0.001")
        patient = [part for limit in limits for part in ("--set", f"serve.{limit}")]
        with (
            ServerProcess("ranking", tmp_path, *places(catalogue), *patient) as server,
            RankingClient(server.address, timeout=PATIENCE) as client,
        ):
            before = client.rank(["item-1", "item-2"]).items
            yield Target(RANKING, server.address, server.process.pid, lambda: client.rank(["item-1", "item-2"]).items == before)
    else:
        with server_process(tmp_path / "store") as (process, client, _):
            yield Target(EMBEDDING, client.address, process.pid, lambda: embeds(client))


def embeds(client: EmbeddingClient) -> bool:
    reply = client.embed(Item("after all", title="a rose"))
    return client.get(reply.item_id, return_vector=True).vector is not None


def test_fault_bad_text_a_few_hundred_fuzzed_frames_get_a_status_for_clients(target):
    assert send(target.address, target.service, 60, seed=1) >= 180
    assert target.works()


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_fault_bad_text_102_000_fuzzed_frames_get_a_status_for_clients_and_leave_nothing_behind(target, record_property):
    each = {RANKING: 20_000, EMBEDDING: 7_000}[target.service]
    warm_up = int(WARM_UP_SHARE * each)
    sent = send(target.address, target.service, warm_up, seed=2)
    before = own_bytes(target.pid)
    sent += send(target.address, target.service, each - warm_up, seed=3)
    growth = own_bytes(target.pid) / before - 1.0
    record_property("frames", sent)
    record_property("growth", growth)
    print(f"{target.service}: {sent} frames, {before >> 20} MiB before, growth {growth:.2%}")
    assert sent == each * {RANKING: 3, EMBEDDING: 6}[target.service]
    assert target.works()
    assert growth < LARGEST_GROWTH
