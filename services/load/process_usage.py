"""Processor time and memory of processes, read from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

KIB = 1024


@dataclass(frozen=True)
class Memory:
    """Of one process, in bytes.

    Attributes:
        resident: pages it has in memory (RSS).
        proportional: the same with each page divided by the number of processes that share it (PSS).
        private: pages that it shares with nobody.
    """

    resident: int
    proportional: int
    private: int


def cpu_seconds(pids: Iterable[int]) -> float:
    """Processor time that these processes have used, user and system, all their threads."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> Memory:
    """What a process has in memory now."""
    found: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]:
        name, _, size = line.partition(":")
        found[name] = int(size.split()[0]) * KIB
    return Memory(found["Rss"], found["Pss"], found["Private_Clean"] + found["Private_Dirty"])
