"""Titles of the items, kept in step with the embedding service, to be searched while a person types."""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc

from llmgr_core.data.item import Item
from services.client import EmbeddingClient, ServiceError

READERS = 8
BLOCK = 256
SECONDS_BEFORE_ANOTHER_TRY = 1.0


@dataclass(frozen=True)
class Entry:
    """What the page shows of an item, and the folded text it is found by."""

    item: Item
    folded: str


class Catalogue:
    """Follows the change log on a thread of its own and reads every item it names.

    Args:
        client: of the embedding service.
        max_items: further ones are not kept; they still rank, and are named when they are shown.

    Attributes:
        error: why the service cannot be followed now; None while it can.
        read_all: set once every item that there was at first has been read.
    """

    def __init__(self, client: EmbeddingClient, max_items: int) -> None:
        self._client = client
        self._max_items = max_items
        self._entries: dict[str, Entry] = {}
        self._lock = threading.Lock()
        self._after, self._epoch = 0, ""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="catalogue", daemon=True)
        self.error: ServiceError | None = None
        self.read_all = threading.Event()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """The client has to be closed first, which ends the stream that the thread waits on."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(5.0)

    def __len__(self) -> int:
        return len(self._entries)

    def item(self, item_id: str) -> Item | None:
        """An item; asks the service for one that is not kept. None where it is unknown or the service fails."""
        entry = self._entries.get(item_id)
        if entry is not None:
            return entry.item
        if self.error is not None:
            # A ranking has twenty of them, and none shall wait for a service that is away.
            return None
        try:
            item = self._client.get(item_id, timeout=2.0).item
        except ServiceError:
            return None
        self.keep(item)
        return item

    def keep(self, item: Item) -> None:
        """Take an item in, or its new text."""
        folded = fold(" ".join(part for part in (item.title, item.brand, item.item_id) if part))
        with self._lock:
            if item.item_id in self._entries or len(self._entries) < self._max_items:
                self._entries[item.item_id] = Entry(item, folded)

    def forget(self, item_id: str) -> None:
        with self._lock:
            self._entries.pop(item_id, None)

    def search(self, query: str, limit: int) -> list[Item]:
        """Items whose title, brand or id hold every word of ``query``; those that begin with it first, then short titles.

        Args:
            query: as typed; case and accents do not count.
            limit: how many.
        """
        words = fold(query).split()
        if not words:
            return []
        with self._lock:
            entries = list(self._entries.values())
        found = [one for one in entries if all(word in one.folded for word in words)]
        found.sort(key=lambda one: (not one.folded.startswith(words[0]), len(one.folded), one.folded))
        return [one.item for one in found[:limit]]

    def some(self, limit: int) -> list[Item]:
        """The first items, for a person who has not typed yet."""
        with self._lock:
            return [one.item for one in list(self._entries.values())[:limit]]

    def _follow(self) -> None:
        with ThreadPoolExecutor(READERS, "titles") as readers:
            while not self._stopped.is_set():
                try:
                    self._follow_on(readers)
                except ServiceError as error:
                    if error.reason in {"OTHER_STORE", "SEQUENCE_AHEAD"}:
                        self._after, self._epoch = 0, ""
                        with self._lock:
                            self._entries.clear()
                    self.error = error
                except ValueError:
                    # The channel was closed under the stream: the page is stopping.
                    return
                self._stopped.wait(SECONDS_BEFORE_ANOTHER_TRY)

    def _follow_on(self, readers: ThreadPoolExecutor) -> None:
        """Take in changes until the stream breaks."""
        block: dict[str, bool] = {}
        info = self._client.info(timeout=5.0)
        self.error = None
        if self._after >= info.sequence:
            self.read_all.set()
        for change in self._client.changes(self._after, store_epoch=self._epoch or info.store_epoch):
            self._epoch = info.store_epoch
            block[change.item_id] = change.deleted
            if len(block) >= BLOCK or change.sequence >= change.head_sequence:
                self._take_in(block, readers)
                self._after, block = change.sequence, {}
            if self._after >= info.sequence:
                self.read_all.set()
            if self._stopped.is_set():
                return

    def _take_in(self, block: dict[str, bool], readers: ThreadPoolExecutor) -> None:
        for item_id, deleted in block.items():
            if deleted:
                self.forget(item_id)
        alive: Iterable[str] = (item_id for item_id, deleted in block.items() if not deleted)
        for item in readers.map(self._read, alive):
            if item is not None:
                self.keep(item)

    def _read(self, item_id: str) -> Item | None:
        try:
            return self._client.get(item_id).item
        except ServiceError as error:
            # Deleted meanwhile, or damaged in the store: the others are to be found all the same.
            if error.code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.DATA_LOSS):
                return None
            raise


def fold(text: str) -> str:
    """Text in which case and accents do not count."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(one for one in decomposed if not unicodedata.combining(one))
