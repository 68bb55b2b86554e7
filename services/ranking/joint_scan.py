"""One pass over a large table for all rankings that wait for it.

A pass over a million rows is bound by memory: 13 ms for one session, 23 ms for eight together. So while one pass runs, those
who come wait, and the next pass is for all of them. Nobody waits for company: a session that comes alone is scored at once. (To
begin a pass only once every session that had come was encoded, and so could join, gained nothing at 150 a second.)
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt

from llmgr_core.ranker.item_rows import BLOCK_ROWS, ItemRows
from llmgr_core.ranker.snapshot import scanned

Floats = npt.NDArray[np.float32]


@dataclass(eq=False)
class _Wanted:
    """A session whose scores are wanted; its thread sleeps until they are there or it leads the next pass.

    Attributes:
        scores: float32 [count], where they go.
        between: raises once nobody waits for them any more.
    """

    rows: ItemRows
    query: Floats
    cosine: bool
    scores: Floats
    between: Callable[[], None] | None
    failure: BaseException | None = None
    leads: bool = False
    slept: float = 0.0
    awake: threading.Event = field(default_factory=threading.Event)

    def given_up(self) -> bool:
        """Whether it needs no scores any more; then ``failure`` says why."""
        if self.failure is None and self.between is not None:
            try:
                self.between()
            except BaseException as error:
                self.failure = error
        return self.failure is not None


class JointScan:
    """Scores of all rows for several sessions at once.

    Args:
        slots: what a thread holds while it computes; given back for the pass, and while it waits for one.
        smallest: rows from which on a pass is shared; None never shares.
        most: sessions in one pass.
        observe: told how many sessions each pass was for.
    """

    def __init__(
        self,
        slots: threading.Semaphore,
        smallest: int | None,
        most: int,
        observe: Callable[[int], None],
    ) -> None:
        self.arrays = ScoreArrays(most)
        self._slots = slots
        self._smallest = smallest
        self._most = most
        self._observe = observe
        self._guard = threading.Lock()
        self._running = False
        self._waiting: list[_Wanted] = []

    def pays(self, rows: ItemRows) -> bool:
        """Whether the table is large enough."""
        return self._smallest is not None and rows.count >= self._smallest

    def compute(self, wanted: _Wanted) -> None:
        """Scores for one session, computed by this thread or by another one.

        Raises:
            BaseException: what its ``between`` raises; whatever a shared pass failed with.
        """
        with self._guard:
            if self._running:
                self._waiting.append(wanted)
            else:
                self._running = wanted.leads = True
        # Also for the pass itself, so that others get as far as waiting for the next one.
        self._slots.release()
        try:
            if not wanted.leads:
                began = time.perf_counter()
                wanted.awake.wait()
                wanted.slept = time.perf_counter() - began
            if wanted.leads:
                self._lead(wanted)
        finally:
            self._slots.acquire()
        if wanted.failure is not None:
            raise wanted.failure

    def _lead(self, first: _Wanted) -> None:
        with self._guard:
            alike = [one for one in self._waiting if one.rows is first.rows and one.cosine == first.cosine]
            together = [first, *alike[: self._most - 1]]
            self._waiting = [one for one in self._waiting if one not in together]
        try:
            # Whoever gave up while it waited costs the others nothing.
            wanted = [one for one in together if not one.given_up()]
            if wanted:
                _score(wanted)
                self._observe(len(wanted))
        except BaseException as error:
            for one in together:
                one.failure = one.failure or error
        finally:
            with self._guard:
                successor = self._waiting.pop(0) if self._waiting else None
                self._running = successor is not None
                if successor is not None:
                    successor.leads = True
            for done in together:
                done.awake.set()
            if successor is not None:
                successor.awake.set()


def _score(wanted: list[_Wanted]) -> None:
    """One pass for all of them; it ends early when all have given up."""
    first = wanted[0]
    if len(wanted) == 1:
        first.rows.products(first.query, first.cosine, first.scores, first.between)
        return

    def some_wait() -> None:
        if all(one.given_up() for one in wanted):
            assert first.failure is not None
            raise first.failure

    queries = np.stack([one.query for one in wanted])
    first.rows.products_of(queries, first.cosine, [one.scores for one in wanted], some_wait)


class ScoreArrays:
    """Arrays for the scores of a large table, used again: new memory would cost as much as the pass that fills it.

    Args:
        most: arrays that are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._free: list[Floats] = []

    def lend(self, count: int) -> Floats:
        """An array float32 [at least count] of any content."""
        with contextlib.suppress(IndexError):
            # Of a table that has grown since; it is not used again.
            if len(array := self._free.pop()) >= count:
                return array
        return np.empty(-(-count // BLOCK_ROWS) * BLOCK_ROWS, dtype=np.float32)

    def take_back(self, array: Floats) -> None:
        """One that was lent, and that nobody reads any more."""
        if len(self._free) < self._most:
            self._free.append(array)


class ScanTurn:
    """One ranking's way to the scores of all rows; a context, after which nobody may read the scores any more.

    Attributes:
        waited: seconds that it slept while others computed.
    """

    def __init__(self, scan: JointScan) -> None:
        self._scan = scan
        self._lent: list[Floats] = []
        self.waited = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        while self._lent:
            self._scan.arrays.take_back(self._lent.pop())

    def __call__(self, rows: ItemRows, query: Floats, cosine: bool, between: Callable[[], None] | None) -> Floats:
        """As ``ItemRows.products``, into an array of this ranking, float32 [count]."""
        if not self._scan.pays(rows):
            return scanned(rows, query, cosine, between)
        self._lent.append(self._scan.arrays.lend(rows.count))
        wanted = _Wanted(rows, query, cosine, self._lent[-1][: rows.count], between)
        try:
            self._scan.compute(wanted)
        finally:
            self.waited += wanted.slept
        return wanted.scores
