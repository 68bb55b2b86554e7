"""Items on their way through one EmbedItems stream after another, until each has its outcome."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator

import grpc

from llmgr_core.data.item import Item
from services.client.errors import ServiceError
from services.contract import embedding_service_pb2 as messages
from services.item_messages import item_message

# Items that may be under way, all of which are sent again where a stream breaks. A server works on fewer at a time.
WINDOW = 512


class Unsettled:
    """Requests that have no outcome yet, by their place in what the caller gave.

    Args:
        return_vector: what every request asks for.
    """

    def __init__(self, *, return_vector: bool) -> None:
        self._return_vector = return_vector
        self._requests: dict[int, messages.EmbedItemsRequest] = {}
        self._taken = 0
        self._again: deque[int] = deque()
        self._at_position: dict[int, int] = {}
        self._positions = 0

    def __len__(self) -> int:
        return len(self._requests)

    @property
    def waits_to_be_sent(self) -> bool:
        """Whether there is something that the present stream has not been given."""
        return bool(self._again)

    def begin_stream(self) -> None:
        """Everything that has no outcome goes first, in the order it came in: edits of one item must not change places."""
        self._again = deque(self._requests)
        self._at_position.clear()
        self._positions = 0

    def add(self, item: Item) -> None:
        """Take in the caller's next item.

        Raises:
            InputError: it cannot be sent.
        """
        request = messages.EmbedItemsRequest(item=item_message(item), return_vector=self._return_vector)
        self._requests[self._taken] = request
        self._again.append(self._taken)
        self._taken += 1

    def send(self) -> messages.EmbedItemsRequest:
        """The next request of the present stream."""
        index = self._again.popleft()
        self._at_position[self._positions] = index
        self._positions += 1
        return self._requests[index]

    def settle(self, position: int) -> int:
        """Note an outcome.

        Args:
            position: in the present stream.

        Returns:
            its place in what the caller gave.

        Raises:
            ServiceError: INTERNAL, the server answered what was never asked.
        """
        index = self._at_position.pop(position, None)
        if index is None:
            raise ServiceError(grpc.StatusCode.INTERNAL, f"the server answered item {position} twice, or unasked")
        del self._requests[index]
        return index


class ItemFeed:
    """For threads: gRPC reads a stream's requests on a thread of its own, the outcomes come on another.

    Args:
        items: read as the server takes them.
        return_vector: ask for the vectors.
    """

    def __init__(self, items: Iterable[Item], *, return_vector: bool) -> None:
        self._source = iter(items)
        self._unsettled = Unsettled(return_vector=return_vector)
        self._changed = threading.Condition()
        # Held while the source is asked, which may take for ever; the thread of a broken stream may still be at it.
        self._reading = threading.Lock()
        self._stream = 0
        self._exhausted = False
        self.error: Exception | None = None

    @property
    def finished(self) -> bool:
        """Whether every item has its outcome."""
        with self._changed:
            return self._exhausted and not self._unsettled

    def requests(self) -> Iterator[messages.EmbedItemsRequest]:
        """The requests of another stream; those of earlier ones end."""
        with self._changed:
            self._stream += 1
            self._unsettled.begin_stream()
            self._changed.notify_all()
            return self._requests_of(self._stream)

    def settle(self, position: int) -> int:
        """See Unsettled.settle."""
        with self._changed:
            index = self._unsettled.settle(position)
            self._changed.notify_all()
            return index

    def close(self) -> None:
        """End the requests of every stream."""
        with self._changed:
            self._stream = -1
            self._changed.notify_all()

    def _requests_of(self, stream: int) -> Iterator[messages.EmbedItemsRequest]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stream != stream or self._may_go_on())
                if self._stream != stream:
                    return
                request = self._unsettled.send() if self._unsettled.waits_to_be_sent else None
                if request is None and self._exhausted:
                    return
            if request is None:
                self._read(stream)
            else:
                yield request

    def _may_go_on(self) -> bool:
        return self._unsettled.waits_to_be_sent or self._exhausted or len(self._unsettled) < WINDOW

    def _read(self, stream: int) -> None:
        with self._reading:
            with self._changed:
                if self._stream != stream or self._unsettled.waits_to_be_sent or self._exhausted:
                    return
            try:
                item = next(self._source)
                with self._changed:
                    self._unsettled.add(item)
            except StopIteration:
                self._end(None)
            except Exception as error:
                # Raised in gRPC's thread it would reach the caller as a nameless UNKNOWN; the stream ends here instead.
                self._end(error)

    def _end(self, error: Exception | None) -> None:
        with self._changed:
            self._exhausted, self.error = True, error
            self._changed.notify_all()
