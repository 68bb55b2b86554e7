"""The client: sends every call of a plan when it is due, whatever has become of the earlier ones."""

from __future__ import annotations

import gc
import multiprocessing
import select
import time
from collections import deque
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from llmgr_core.errors import LlmgrError
from services.load.connection import LARGEST_REQUEST, UNAVAILABLE, Http2Connection
from services.load.outcomes import Outcomes
from services.load.plan import LoadPlan

DEADLINE_EXCEEDED = 4
# Nothing of this process's own is due sooner than this often.
LONGEST_WAIT = 0.05
SECONDS_BETWEEN_CONNECTS = 0.02


def run_apart(plan: LoadPlan) -> Outcomes:
    """Carry out a plan in a process of its own, so that whoever asks shares no interpreter lock with the client.

    Raises:
        LlmgrError: the process failed.
    """
    # Never fork: a process that has used gRPC leaves its child with broken copies of it.
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_run_and_send, args=(theirs,), name="load", daemon=True)
    process.start()
    theirs.close()
    try:
        ours.send(plan)
        outcomes: Outcomes = ours.recv()
    except (EOFError, BrokenPipeError):
        raise LlmgrError("the load client ended early; its message stands above") from None
    process.join()
    return outcomes


def _run_and_send(pipe: Connection[Any, Any]) -> None:
    pipe.send(run(pipe.recv()))


def run(plan: LoadPlan, *, keep_replies: bool = False) -> Outcomes:
    """Carry out a plan in this thread; see LoadPlan.

    Args:
        keep_replies: put the replies' bytes into the outcomes.

    Raises:
        LlmgrError: a message is too large for this client.
    """
    largest = max((len(message) for message in plan.messages), default=0)
    if largest > LARGEST_REQUEST:
        raise LlmgrError(f"a request of {largest} bytes is more than the load client sends ({LARGEST_REQUEST})")
    # A collection of cyclic garbage stops everything for milliseconds, and there is hardly any here.
    gc.disable()
    try:
        return _Run(plan, keep_replies).to_the_end()
    finally:
        gc.enable()


class _Run:
    """One pass through a plan."""

    def __init__(self, plan: LoadPlan, keep_replies: bool) -> None:
        self._plan = plan
        self._keep = keep_replies
        count = len(plan)
        self._sent = np.full(count, np.nan)
        self._finished = np.full(count, np.nan)
        self._status = np.full(count, -1, dtype=np.int64)
        self._replies: list[bytes] = [b""] * count if keep_replies else []
        self._lines: list[list[_Line]] = []
        by_address: dict[tuple[str, int], list[_Line]] = {}
        for method in plan.methods:
            place = (method.host, method.port)
            if place not in by_address:
                by_address[place] = [_Line(*place, plan.metadata, keep_replies) for _ in range(plan.connections)]
            self._lines.append(by_address[place])
        self._all = [line for lines in by_address.values() for line in lines]
        self._deadlines: deque[tuple[float, int, Http2Connection]] = deque()
        self._outstanding = 0

    def to_the_end(self) -> Outcomes:
        plan, count = self._plan, len(self._plan)
        due = plan.times.tolist()
        limit = plan.in_flight or count + 1
        cpu = time.process_time()
        start = time.monotonic() + 0.01
        number = 0
        while number < count or self._outstanding:
            now = time.monotonic() - start
            while number < count and due[number] <= now and self._outstanding < limit:
                self._begin(number, now)
                number += 1
                now = time.monotonic() - start
            for line in self._all:
                line.flush()
            wait = LONGEST_WAIT
            if number < count and self._outstanding < limit:
                wait = min(wait, max(due[number] - now, 0.0))
            self._listen(wait, start)
            self._expire(time.monotonic() - start)
        seconds = time.monotonic() - start
        for line in self._all:
            line.close()
        return Outcomes(
            methods=tuple(method.name for method in plan.methods),
            method_of=plan.method_of,
            due=plan.times,
            sent=self._sent,
            finished=self._finished,
            status=self._status,
            seconds=seconds,
            client_cpu_seconds=time.process_time() - cpu,
            started_at=start,
            replies=self._replies,
        )

    def _begin(self, number: int, now: float) -> None:
        plan = self._plan
        which = int(plan.method_of[number])
        lines = self._lines[which]
        self._sent[number] = now
        connection = lines[number % len(lines)].usable(now)
        if connection is None:
            self._end(number, UNAVAILABLE, now)
            return
        self._outstanding += 1
        connection.begin(number, plan.methods[which].path, plan.messages[number], plan.timeout)
        self._deadlines.append((now + plan.timeout, number, connection))

    def _listen(self, wait: float, start: float) -> None:
        connections = {one.socket: one for line in self._all for one in line.connections}
        writing = [one.socket for one in connections.values() if one.wants_to_write]
        if not connections:
            time.sleep(wait)
            return
        readable, _, _ = select.select(list(connections), writing, (), wait)
        for ready in readable:
            finished = connections[ready].receive()
            now = time.monotonic() - start
            for one in finished:
                self._outstanding -= 1
                self._end(one.call, one.status, now)
                if self._keep:
                    self._replies[one.call] = one.reply

    def _expire(self, now: float) -> None:
        while self._deadlines and self._deadlines[0][0] <= now:
            _, number, connection = self._deadlines.popleft()
            if self._status[number] < 0:
                connection.cancel(number)
                self._outstanding -= 1
                self._end(number, DEADLINE_EXCEEDED, now)

    def _end(self, number: int, status: int, now: float) -> None:
        self._finished[number] = now
        self._status[number] = status


class _Line:
    """A place for one connection at a time to an address; one that the server wants to close lives on beside its successor."""

    def __init__(self, host: str, port: int, metadata: tuple[tuple[str, str], ...], keep_replies: bool) -> None:
        self._host, self._port = host, port
        self._metadata = metadata
        self._keep = keep_replies
        self._retry_at = -1.0
        self.connections: list[Http2Connection] = []

    def usable(self, now: float) -> Http2Connection | None:
        """A connection that takes a call now; None where the server cannot be reached."""
        for one in self.connections:
            if one.usable:
                return one
        if now < self._retry_at:
            return None
        try:
            opened = Http2Connection(self._host, self._port, self._metadata, keep_replies=self._keep)
        except OSError:
            self._retry_at = now + SECONDS_BETWEEN_CONNECTS
            return None
        self.connections.append(opened)
        return opened

    def flush(self) -> None:
        for one in self.connections:
            if one.wants_to_write:
                one.flush()
        done = [one for one in self.connections if one.outstanding == 0 and (one.closed or one.draining)]
        for one in done:
            self.connections.remove(one)
            one.close()

    def close(self) -> None:
        for one in self.connections:
            one.close()
