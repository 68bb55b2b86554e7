"""Items on their way through EmbedItems streams, on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable

from llmgr_core.data.item import Item
from services.client.item_feed import WINDOW, Unsettled
from services.contract import embedding_service_pb2 as messages


class AsyncItemFeed:
    """See ItemFeed.

    Args:
        items: read as the server takes them.
        return_vector: ask for the vectors.
    """

    def __init__(self, items: Iterable[Item] | AsyncIterable[Item], *, return_vector: bool) -> None:
        self._source = aiter(items) if isinstance(items, AsyncIterable) else _asynchronous(items)
        self._unsettled = Unsettled(return_vector=return_vector)
        self._changed = asyncio.Event()
        # Outlives the stream that wanted it: cancelling it would end the caller's generator for good.
        self._reading: asyncio.Task[None] | None = None
        self._stream = 0
        self._exhausted = False
        self.error: Exception | None = None

    @property
    def finished(self) -> bool:
        """Whether every item has its outcome."""
        return self._exhausted and not self._unsettled

    def requests(self) -> AsyncIterator[messages.EmbedItemsRequest]:
        """The requests of another stream; those of earlier ones end."""
        self._stream += 1
        self._unsettled.begin_stream()
        self._changed.set()
        return self._requests_of(self._stream)

    def settle(self, position: int) -> int:
        """See Unsettled.settle."""
        index = self._unsettled.settle(position)
        self._changed.set()
        return index

    def close(self) -> None:
        """End the requests of every stream, and the reading of the source."""
        self._stream = -1
        self._changed.set()
        if self._reading is not None:
            self._reading.cancel()

    async def _requests_of(self, stream: int) -> AsyncIterator[messages.EmbedItemsRequest]:
        while self._stream == stream:
            if self._unsettled.waits_to_be_sent:
                yield self._unsettled.send()
            elif self._exhausted:
                return
            elif len(self._unsettled) >= WINDOW:
                self._changed.clear()
                await self._changed.wait()
            else:
                if self._reading is None:
                    self._reading = asyncio.create_task(self._read())
                await asyncio.wait({self._reading})

    async def _read(self) -> None:
        try:
            self._unsettled.add(await anext(self._source))
        except StopAsyncIteration:
            self._exhausted = True
        except Exception as error:
            self._exhausted, self.error = True, error
        finally:
            self._reading = None
            self._changed.set()


async def _asynchronous(items: Iterable[Item]) -> AsyncIterator[Item]:
    for item in items:
        yield item
