"""Millions of hashes in eight bytes each, for telling what was seen."""

from __future__ import annotations

import numpy as np

# New ones until they are sorted in among the others, which moves them all once.
YOUNG = 1 << 16


class HashSet:
    """A set of hashes that knows each by its first eight bytes.

    A Python set takes a hundred bytes for each. Two of ten million hashes begin alike with a chance of about 3e-6.
    """

    def __init__(self) -> None:
        self._sorted = np.empty(0, dtype=np.uint64)
        self._young: set[int] = set()

    def add(self, key: bytes) -> None:
        """Add a hash of at least eight bytes."""
        self._young.add(int.from_bytes(key[:8], "little"))
        if len(self._young) == YOUNG:
            young = np.fromiter(self._young, dtype=np.uint64, count=YOUNG)
            # Stable: timsort merges runs that are sorted already.
            self._sorted = np.sort(np.concatenate([self._sorted, np.sort(young)]), kind="stable")
            self._young.clear()

    def __contains__(self, key: bytes) -> bool:
        number = int.from_bytes(key[:8], "little")
        if number in self._young:
            return True
        place = int(np.searchsorted(self._sorted, np.uint64(number)))
        return place < len(self._sorted) and int(self._sorted[place]) == number
