"""How many bytes streams, or single calls, may have in work together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class ByteBudget:
    """A bound that streams share, or single calls; for one event loop.

    Who came first gets room first, so that small items do not pass a large one by for ever. One that is larger than the whole
    budget gets all of it, and is alone.

    Args:
        limit: bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self.taken = 0

    async def take(self, size: int) -> int:
        """Wait until there is room.

        Args:
            size: bytes.

        Returns:
            what to give back.
        """
        share = min(size, self._limit)
        if not self._waiting and self.taken + share <= self._limit:
            self.taken += share
            return share
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((share, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                # Those behind it may fit where it did not.
                self._admit()
            else:
                # Its turn came in the same moment.
                self.give_back(share)
            raise
        return share

    @contextmanager
    def held_at_once(self, size: int) -> Iterator[bool]:
        """For those who would rather be refused than wait: whether there is room, which is held until the block ends.

        Args:
            size: bytes.
        """
        share = min(size, self._limit)
        if self._waiting or self.taken + share > self._limit:
            yield False
            return
        self.taken += share
        try:
            yield True
        finally:
            self.give_back(share)

    def give_back(self, share: int) -> None:
        """What ``take`` returned is free again."""
        self.taken -= share
        self._admit()

    def _admit(self) -> None:
        while self._waiting:
            share, turn = self._waiting[0]
            if not turn.cancelled():
                if self.taken + share > self._limit:
                    return
                self.taken += share
                turn.set_result(None)
            self._waiting.popleft()
