"""Notices a ranking that never ends: health turns NOT_SERVING, and the process ends so that another takes its place."""

from __future__ import annotations

import faulthandler
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

TICKS = 4
SHORTEST_TICK = 0.02

log = structlog.get_logger(service="ranking")


class Watchdog(threading.Thread):
    """Looks a few times in ``stuck_after`` seconds whether the rankings that run now are still the same ones.

    Looks are counted, not seconds: where the whole machine stood still, this thread stood still with it.

    A ranking that is stuck leaves two ways out. If the interpreter still runs, this thread sees it and says NOT_SERVING until
    it ends. If it does not (native code that holds the interpreter's lock), not even this thread runs; a timer below the
    interpreter, which this thread winds up at every look, then writes all stacks to standard error and ends the process. The
    same timer ends a process whose ranking stays stuck.

    Args:
        stuck_after: seconds a ranking may take.
        on_change: told True where rankings are stuck, False where they move again.
        exit_after: seconds after which a process that is stuck ends; None never ends it.
    """

    def __init__(self, stuck_after: float, on_change: Callable[[bool], None], exit_after: float | None = None) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._tick = max(stuck_after / TICKS, SHORTEST_TICK)
        self._on_change = on_change
        self._exit_after = exit_after
        self._stopped = threading.Event()
        self._running: dict[int, int] = {}
        self._begun = 0
        self.stuck = False

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Around one ranking."""
        thread = threading.get_ident()
        self._begun += 1
        self._running[thread] = self._begun
        try:
            yield
        finally:
            self._running.pop(thread, None)

    def run(self) -> None:
        seen: dict[int, tuple[int, int]] = {}
        self._wind_up()
        while not self._stopped.wait(self._tick):
            now = dict(self._running)
            seen = {thread: (begun, self._looks(seen.get(thread), begun)) for thread, begun in now.items()}
            stuck = any(looks > TICKS for _, looks in seen.values())
            if stuck != self.stuck:
                self.stuck = stuck
                if stuck:
                    log.error("ranking_stuck", seconds=round(self._tick * TICKS, 3), exit_after_seconds=self._exit_after)
                else:
                    log.warning("ranking_moves_again")
                self._on_change(stuck)
            if not stuck:
                self._wind_up()

    def stop(self) -> None:
        """End the thread and the timer."""
        self._stopped.set()
        if self.is_alive():
            self.join()
        if self._exit_after is not None:
            faulthandler.cancel_dump_traceback_later()

    def _wind_up(self) -> None:
        if self._exit_after is not None:
            faulthandler.dump_traceback_later(self._exit_after, exit=True)

    @staticmethod
    def _looks(before: tuple[int, int] | None, begun: int) -> int:
        """How often in a row this very ranking was seen."""
        return before[1] + 1 if before is not None and before[0] == begun else 1
