"""Counting in how many items a sentence stands, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable


class RepeatCounter:
    """Lossy counting (Manku and Motwani, VLDB 2002) of 64-bit hashes.

    When more than ``capacity`` hashes are held, those seen least are dropped and may start again from the count they could have
    had at most. A hash counted n times is thus reported with n at least, and with n exactly as long as nothing was dropped.

    Args:
        capacity: hashes held at a time; about 100 bytes each.
    """

    def __init__(self, capacity: int = 1 << 19) -> None:
        self._capacity = capacity
        self._counts: dict[int, int] = {}
        self._dropped_at_most = 0

    def add(self, hashes: Iterable[int]) -> None:
        """Count the hashes of one item; the caller hands over each once."""
        counts = self._counts
        for value in hashes:
            count = counts.get(value)
            counts[value] = self._dropped_at_most + 1 if count is None else count + 1
        if len(counts) > self._capacity:
            self._drop()

    def at_least(self, threshold: int) -> set[int]:
        """Hashes counted ``threshold`` times or more.

        Where so much was dropped that a rare sentence could be reported (its possible count reaches the threshold), only those
        certainly counted that often are returned.
        """
        certain = threshold + self._dropped_at_most
        return {value for value, count in self._counts.items() if count >= certain}

    def _drop(self) -> None:
        # Keep at most half, so that dropping is rare; the floor rises with what may have been lost.
        ordered = sorted(self._counts.values(), reverse=True)
        self._dropped_at_most = max(self._dropped_at_most, ordered[self._capacity // 2])
        self._counts = {value: count for value, count in self._counts.items() if count > self._dropped_at_most}
