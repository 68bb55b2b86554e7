"""Notices a ranking that never ends: health turns NOT_SERVING, and the process ends so that another takes its place."""

from __future__ import annotations

import faulthandler
import os
import signal
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

    A ranking that is stuck leaves two ways out. If the interpreter still runs, this thread sees it, says NOT_SERVING until it
    ends, and after a while writes all stacks to standard error and ends the process. If it does not (native code that computes
    and holds the interpreter's lock), not even this thread runs; a timer of the process's own processor time, which this thread
    winds up at every look, then does the same. Processor time, because a machine that was paused, or a process that others kept
    from running, is not stuck. Native code that sleeps with the lock is beyond both: no health check is answered then.

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
        if self._exit_after is not None:
            # Written below the interpreter; then the signal's usual effect ends the process.
            faulthandler.register(signal.SIGPROF, chain=True)
        self._wind_up()
        while not self._stopped.wait(self._tick):
            now = dict(self._running)
            seen = {thread: (begun, self._looks(seen.get(thread), begun)) for thread, begun in now.items()}
            longest = max((looks for _, looks in seen.values()), default=0)
            if self._exit_after is not None and longest * self._tick > self._exit_after:
                log.error("ranking_stuck_for_good", seconds=round(longest * self._tick, 3))
                faulthandler.dump_traceback()
                os._exit(1)
            stuck = longest > TICKS
            if stuck != self.stuck:
                self.stuck = stuck
                if stuck:
                    log.error("ranking_stuck", seconds=round(self._tick * TICKS, 3), exit_after_seconds=self._exit_after)
                else:
                    log.warning("ranking_moves_again")
                self._on_change(stuck)
            self._wind_up()

    def stop(self) -> None:
        """End the thread and the timer."""
        self._stopped.set()
        if self.is_alive():
            self.join()
        if self._exit_after is not None:
            signal.setitimer(signal.ITIMER_PROF, 0.0)
            faulthandler.unregister(signal.SIGPROF)

    def _wind_up(self) -> None:
        if self._exit_after is not None:
            signal.setitimer(signal.ITIMER_PROF, self._exit_after)

    @staticmethod
    def _looks(before: tuple[int, int] | None, begun: int) -> int:
        """How often in a row this very ranking was seen."""
        return before[1] + 1 if before is not None and before[0] == begun else 1
