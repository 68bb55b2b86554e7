"""How many lines of one kind go into the log: a flood of refusals must not become a flood of lines."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable


class LogBudget:
    """Lets so many lines of each kind through a second, and tells how many it kept back before the next one.

    Writing a line costs more than refusing a call does; where thousands are refused, the log would be the load.

    Args:
        lines_per_second: of each kind.
        clock: seconds; for tests.
    """

    def __init__(self, lines_per_second: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = lines_per_second
        self._clock = clock
        self._lock = threading.Lock()
        self._seconds: dict[Hashable, tuple[int, int]] = {}
        self._kept_back: dict[Hashable, int] = {}

    def spend(self, kind: Hashable) -> int | None:
        """Ask for one line.

        Args:
            kind: from a small set, for example (method, code).

        Returns:
            None where the line is to be kept back, else how many were kept back since the last one that was let through.
        """
        second = int(self._clock())
        with self._lock:
            now, lines = self._seconds.get(kind, (second, 0))
            if now != second:
                lines = 0
            if lines >= self._most:
                self._kept_back[kind] = self._kept_back.get(kind, 0) + 1
                return None
            self._seconds[kind] = (second, lines + 1)
            return self._kept_back.pop(kind, 0)
