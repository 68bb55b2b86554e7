"""A processor core for each ranking process.

Threads of one interpreter take turns. Where the kernel spreads them over two cores, each turn wakes the other core up, and a
ranking of half a millisecond costs twice that; on one core they hand over within microseconds.
"""

from __future__ import annotations

import os
import random
import socket
import threading
from contextlib import suppress
from pathlib import Path

import structlog

BACKGROUND_NICENESS = 10

log = structlog.get_logger(service="ranking")


class OwnCore:
    """Holds this process to a core that no other ranking process of this machine has claimed.

    A claim is a name in Linux' abstract socket space, which ends with the process, however that ends. Processes in different
    network namespaces (containers) do not see each other's claims: give those a set of cores each.

    Attributes:
        core: its number; None where there is none.
    """

    def __init__(self) -> None:
        self.core: int | None = None
        self._claim: socket.socket | None = None
        self._before: set[int] = set()

    def claim(self) -> None:
        """Take a free core; a process that finds none, or has a single one anyway, runs as before."""
        if not hasattr(os, "sched_setaffinity"):
            log.warning("no_core_of_its_own", reason="this system does not bind processes to cores")
            return
        self._before = os.sched_getaffinity(0)
        if len(self._before) > 1:
            self._take(random.sample(sorted(self._before), len(self._before)))

    def release(self) -> None:
        """Let the process run on every core again."""
        if self._claim is not None:
            _hold(self._before)
            self._claim.close()
            self._claim = self.core = None

    def step_back(self) -> None:
        """Let the process's other threads go before the calling one, from now on: for long work beside rankings.

        Only on a core of its own. On one shared with other processes, these would come in between while the thread holds
        the interpreter, and rankings would wait for them too.
        """
        if self.core is not None:
            me = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, me, max(os.getpriority(os.PRIO_PROCESS, me), BACKGROUND_NICENESS))

    def _take(self, cores: list[int]) -> None:
        for core in cores:
            claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                claim.bind(f"\0llmgr-ranking-core-{core}")
            except OSError:
                claim.close()
                continue
            self._claim, self.core = claim, core
            _hold({core})
            return
        log.warning("no_core_of_its_own", reason="other ranking processes have all of them", cores=len(cores))


def _hold(cores: set[int]) -> None:
    """Hold every thread of this process, and those they start from now on, to these cores."""
    held: set[int] = set()
    # Again until there is none that a thread not held yet has started meanwhile.
    while waiting := {int(task.name) for task in Path("/proc/self/task").iterdir()} - held:
        for task in waiting:
            with suppress(ProcessLookupError):  # it has just ended
                os.sched_setaffinity(task, cores)
        held |= waiting
