"""When an item's vectors are old enough to be made anew, by the clock or by how many language models came after them."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Self

from llmgr_core.errors import InputError
from llmgr_core.store.reading import EmbeddingStore
from llmgr_core.store.records import NO_FINGERPRINT, ItemRecord, fingerprint_key

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@dataclass(frozen=True)
class StaleAfter:
    """A limit; one of the two is set.

    Attributes:
        seconds: vectors older than this are stale.
        versions: vectors are stale when so many encoders came after the one that made them.
    """

    seconds: int | None = None
    versions: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """A duration ("90s", "30m", "12h", "7d", "2w") or a number of encoders ("2").

        Raises:
            InputError: neither.
        """
        found = re.fullmatch(r"(\d+)([smhdw]?)", text.strip())
        if found is None or int(found[1]) == 0:
            raise InputError(f"{text!r} is no limit of age", "give a duration as 12h, 7d or 2w, or a number of models as 2")
        if found[2]:
            return cls(seconds=int(found[1]) * SECONDS[found[2]])
        return cls(versions=int(found[1]))


class Staleness:
    """Tells stale items of a store, at the moment it is made.

    Args:
        store: its change log tells in which order encoders came.
        fingerprint: of the encoder that would make the vectors anew; it counts as the last one.
        limit: how old is too old.
    """

    def __init__(self, store: EmbeddingStore, fingerprint: str, limit: StaleAfter) -> None:
        self._limit, self._now_ns = limit, time.time_ns()
        self._key = fingerprint_key(fingerprint)
        self._age: dict[bytes, int] = {}
        if limit.versions is not None:
            seen = dict.fromkeys(change.fingerprint_key for change in store.changes())
            order = [key for key in seen if key not in (NO_FINGERPRINT, self._key)]
            self._age = {key: len(order) - place for place, key in enumerate(order)}

    def stale(self, item: ItemRecord) -> bool:
        """Whether an item has no vector at all, or none of this encoder and none that is young enough."""
        if not item.texts:
            return True
        if self._key in item.texts:
            return False
        if self._limit.seconds is not None:
            return self._now_ns - item.updated_ns > self._limit.seconds * 10**9
        assert self._limit.versions is not None
        # An encoder that the log does not know made its vectors before the log's first change.
        return min(self._age.get(key, len(self._age) + 1) for key in item.texts) >= self._limit.versions
