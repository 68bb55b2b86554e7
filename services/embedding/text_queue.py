"""Texts waiting for the language model: one forward for duplicates, several texts a forward, a bounded queue.

Everything here runs on the event loop but the forward itself, which has a thread of its own. Single calls go before streams.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
import numpy as np
import numpy.typing as npt

from llmgr_core.store.item_encoder import ItemEncoder
from services.embedding.metrics import EmbeddingMetrics
from services.server.errors import RequestError, overloaded

RECENT_VECTORS = 4096
# Pieces of common tokenizers are about four bytes of English; fewer bytes a token estimates too many tokens, which is harmless.
BYTES_PER_TOKEN = 3
EXTRA_TOKENS = 8
SHORTEST_WAIT_S, LONGEST_WAIT_S = 0.05, 30.0


@dataclass(frozen=True)
class Encoded:
    """A text's vector and what it cost.

    Attributes:
        vector: float16 [D].
        queue_ns, model_ns: waiting and forward; both 0 where the vector was there already.
    """

    vector: npt.NDArray[np.float16]
    queue_ns: int = 0
    model_ns: int = 0


class _Flight:
    """One text on its way through the model, and how many requests wait for it."""

    def __init__(self, key: bytes, text: str, bulk: bool) -> None:
        self.key, self.text, self.bulk = key, text, bulk
        self.waiting = 0
        self.started = False
        self.queued_at = time.perf_counter_ns()
        self.outcome: asyncio.Future[Encoded] = asyncio.get_running_loop().create_future()

    def tokens(self, limit: int) -> int:
        return min(limit, len(self.text.encode("utf-8")) // BYTES_PER_TOKEN + EXTRA_TOKENS)


class TextQueue:
    """Texts in, vectors out.

    Args:
        encoder: the language model.
        max_queued: texts of single calls that may wait.
        metrics: where forwards are counted.
    """

    def __init__(self, encoder: ItemEncoder, max_queued: int, metrics: EmbeddingMetrics) -> None:
        self._encoder = encoder
        self._max_queued = max_queued
        self._metrics = metrics
        self._flights: dict[bytes, _Flight] = {}
        # Vectors between their forward and their commit, so that a duplicate that comes just then costs nothing either.
        self._recent: OrderedDict[bytes, npt.NDArray[np.float16]] = OrderedDict()
        self._single: deque[_Flight] = deque()
        self._bulk: deque[_Flight] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="language-model")
        self._seconds_per_text = 0.01
        self._worker = asyncio.create_task(self._work())

    async def encode(self, key: bytes, text: str, *, bulk: bool) -> Encoded:
        """The vector of a text.

        Args:
            key: the text's hash; equal keys share one forward.
            text: cleaned.
            bulk: part of a stream: waits behind single calls, is never refused for a full queue. A text of a stream goes
                to the single calls when one of them wants it too.

        Raises:
            RequestError: RESOURCE_EXHAUSTED where too many texts wait; INTERNAL where the model gives no usable numbers.
        """
        if (known := self._recent.get(key)) is not None:
            return Encoded(known)
        flight = self._flights.get(key) or self._enqueue(key, text, bulk)
        if not bulk:
            self.bring_forward(key)
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.outcome)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.started:
                # Every caller has hung up or passed its deadline: the model need not read it.
                self._drop(flight)

    def bring_forward(self, key: bytes) -> None:
        """Let a text of a stream wait among the single calls, where there is one, and room."""
        flight = self._flights.get(key)
        if flight is not None and flight.bulk and not flight.started and len(self._single) < self._max_queued:
            self._bulk.remove(flight)
            flight.bulk = False
            self._single.append(flight)

    def waiting(self) -> int:
        """Texts that wait for the model, without those it reads now."""
        return len(self._single) + len(self._bulk)

    def expected_wait(self) -> float:
        """Seconds after which the texts of single calls that wait now will have been read, about."""
        return min(max(self._seconds_per_text * len(self._single), SHORTEST_WAIT_S), LONGEST_WAIT_S)

    async def close(self) -> None:
        """Stop; whoever still waits gets CancelledError."""
        self._worker.cancel()
        await asyncio.gather(self._worker, return_exceptions=True)
        for flight in self._flights.values():
            flight.outcome.cancel()
        self._thread.shutdown(wait=True)

    def _enqueue(self, key: bytes, text: str, bulk: bool) -> _Flight:
        if not bulk and len(self._single) >= self._max_queued:
            self._metrics.refused.inc()
            raise overloaded(f"{len(self._single)} texts are waiting for the language model", self.expected_wait())
        flight = _Flight(key, text, bulk)
        self._flights[key] = flight
        (self._bulk if bulk else self._single).append(flight)
        self._arrived.set()
        return flight

    def _drop(self, flight: _Flight) -> None:
        (self._bulk if flight.bulk else self._single).remove(flight)
        self._flights.pop(flight.key, None)
        flight.outcome.cancel()
        self._metrics.dropped.inc()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            batch = self._next_batch()
            if not batch:
                self._arrived.clear()
                continue
            started = time.perf_counter_ns()
            results = await loop.run_in_executor(self._thread, self._encoder.encode, [flight.text for flight in batch])
            spent = time.perf_counter_ns() - started
            self._seconds_per_text += 0.2 * (spent / 1e9 / len(batch) - self._seconds_per_text)
            self._metrics.forward_seconds.observe(spent / 1e9)
            self._metrics.forward_texts.inc(len(batch))
            for flight, result in zip(batch, results, strict=True):
                self._land(flight, result, started - flight.queued_at, spent)

    def _next_batch(self) -> list[_Flight]:
        """Waiting texts, single calls first, up to about one forward's tokens; a forward holds at least one."""
        batch: list[_Flight] = []
        longest = 0
        while queue := self._single or self._bulk:
            longest = max(longest, queue[0].tokens(self._encoder.max_tokens))
            if batch and longest * (len(batch) + 1) > self._encoder.batch_tokens:
                break
            flight = queue.popleft()
            flight.started = True
            batch.append(flight)
        return batch

    def _land(self, flight: _Flight, result: npt.NDArray[np.float16] | None, queue_ns: int, model_ns: int) -> None:
        del self._flights[flight.key]
        self._metrics.queue_seconds.observe(queue_ns / 1e9)
        if result is None:
            self._metrics.model_faults.inc()
            if flight.waiting:
                flight.outcome.set_exception(_model_fault())
            return
        self._recent[flight.key] = result
        if len(self._recent) > RECENT_VECTORS:
            self._recent.popitem(last=False)
        flight.outcome.set_result(Encoded(result, queue_ns, model_ns))


def _model_fault() -> RequestError:
    return RequestError(
        grpc.StatusCode.INTERNAL, "the language model gave no usable vector for this text; nothing was stored", "MODEL_FAULT"
    )
