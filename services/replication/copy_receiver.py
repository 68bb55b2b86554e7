"""Fetching a whole copy of the source's store."""

from __future__ import annotations

import secrets
import threading
import time
from pathlib import Path
from typing import Any

from llmgr_core.store import StoreDamagedError
from llmgr_core.store.records import DamagedRecordError
from llmgr_core.store.whole_copy import ArrivingCopy, CopyEnd, CopyHead
from services.replication.messages import DamagedMessageError, unpack_copy
from services.replication.redis_link import Keys

WISH_LAPSES_SECONDS = 15
WISH_RENEWED_SECONDS = 5.0
WAIT_SECONDS = 1
# A publisher that sends nothing for so long is away; the wish is made again later.
PATIENCE_SECONDS = 30.0


class CopyStoppedError(Exception):
    """The process is asked to end."""


class NoCopyError(Exception):
    """Nobody sends a copy now."""


class CopyReceiver:
    """One wish, and the copy that comes of it.

    Args:
        link: client of Redis.
        keys: of the catalogue.
        path: directory of the replica.
        stopped: ends the waiting.
    """

    def __init__(self, link: Any, keys: Keys, path: Path, stopped: threading.Event) -> None:
        self._link, self._keys, self._path, self._stopped = link, keys, path, stopped
        self._wish = secrets.token_hex(8)
        self._renewed_at = 0.0

    def fetch(self) -> ArrivedCopy:
        """Fetch it, whole and checked, beside what stands in the directory.

        Raises:
            redis.RedisError, OSError: Redis cannot be reached.
            NoCopyError: nobody sends one.
            CopyStoppedError: the process is asked to end.
            StoreError: a store of its own stands in the directory, the disk is full, or the copy is damaged.
        """
        self._renew()
        self._link.rpush(self._keys.wanted, self._wish)
        arriving: ArrivingCopy | None = None
        try:
            expected = 0
            while True:
                number, message = unpack_copy(self._next())
                if number != expected:
                    raise NoCopyError(f"part {expected} of the copy is lost")
                expected += 1
                if isinstance(message, CopyHead):
                    arriving = ArrivingCopy(self._path, message)
                elif arriving is None:
                    raise NoCopyError("the copy has no head")
                elif isinstance(message, CopyEnd):
                    return ArrivedCopy(arriving, message)
                else:
                    arriving.take(message)
        except (DamagedMessageError, DamagedRecordError) as error:
            _discard(arriving)
            raise StoreDamagedError(f"the copy was damaged on its way: {error}", "it is fetched again") from None
        except BaseException:
            _discard(arriving)
            raise

    def end(self) -> None:
        """Take the wish back."""
        self._link.delete(self._keys.wish(self._wish), self._keys.copy(self._wish))

    def _next(self) -> bytes:
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end:
            if self._stopped.is_set():
                raise CopyStoppedError
            if time.monotonic() - self._renewed_at > WISH_RENEWED_SECONDS:
                self._renew()
            found = self._link.blpop([self._keys.copy(self._wish)], timeout=WAIT_SECONDS)
            if found is not None:
                return bytes(found[1])
        raise NoCopyError("nobody sends a copy: is `llmgr serve publisher` running?")

    def _renew(self) -> None:
        self._link.set(self._keys.wish(self._wish), b"1", ex=WISH_LAPSES_SECONDS)
        self._renewed_at = time.monotonic()


class ArrivedCopy:
    """A copy that is whole; ``put_in_place`` makes it the replica."""

    def __init__(self, arriving: ArrivingCopy, end: CopyEnd) -> None:
        self._arriving, self._end = arriving, end

    def put_in_place(self) -> None:
        """See ArrivingCopy.finish."""
        self._arriving.finish(self._end)


def _discard(arriving: ArrivingCopy | None) -> None:
    if arriving is not None:
        arriving.discard()
