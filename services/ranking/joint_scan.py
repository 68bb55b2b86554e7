"""One pass over a large table for all rankings that wait for it.

A pass over a million rows is bound by memory: 13 ms for one session, 23 ms for eight together. So while one pass runs, those
who come wait, and the next pass is for all of them. Nobody waits for company: a session that comes alone is scored at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from llmgr_core.ranker.item_rows import ItemRows
from llmgr_core.ranker.snapshot import scanned

Floats = npt.NDArray[np.float32]


@dataclass(eq=False)
class _Wanted:
    """A session whose scores are wanted; its thread sleeps until it has them or leads the next pass."""

    rows: ItemRows
    query: Floats
    cosine: bool
    scores: Floats | None = None
    failure: BaseException | None = None
    leads: bool = False
    slept: float = 0.0
    awake: threading.Event = field(default_factory=threading.Event)


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

    def scores(self, wanted: _Wanted, between: Callable[[], None] | None) -> Floats:
        """Scores for one session, computed by this thread or by another one.

        Raises:
            BaseException: what ``between`` raises, where the session is scored alone; whatever a shared pass failed with.
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
                self._lead(wanted, between)
        finally:
            self._slots.acquire()
        if wanted.failure is not None:
            raise wanted.failure
        assert wanted.scores is not None
        return wanted.scores

    def _lead(self, first: _Wanted, between: Callable[[], None] | None) -> None:
        with self._guard:
            together = [one for one in self._waiting if one.rows is first.rows and one.cosine == first.cosine][: self._most - 1]
            self._waiting = [one for one in self._waiting if one not in together]
        try:
            if not together:
                first.scores = scanned(first.rows, first.query, first.cosine, between)
            else:
                queries = np.stack([first.query, *(one.query for one in together)])
                for one, scores in zip((first, *together), first.rows.products_of(queries, first.cosine), strict=True):
                    one.scores = scores
            self._observe(1 + len(together))
        except BaseException as error:
            for one in (first, *together):
                one.failure = error
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


class ScanTurn:
    """One ranking's way to the scores of all rows.

    Attributes:
        waited: seconds that it slept while others computed.
    """

    def __init__(self, scan: JointScan) -> None:
        self._scan = scan
        self.waited = 0.0

    def __call__(self, rows: ItemRows, query: Floats, cosine: bool, between: Callable[[], None] | None) -> Floats:
        """As ``ItemRows.products``, into an array of its own, float32 [count]."""
        if not self._scan.pays(rows):
            return scanned(rows, query, cosine, between)
        wanted = _Wanted(rows, query, cosine)
        try:
            return self._scan.scores(wanted, between)
        finally:
            self.waited += wanted.slept
