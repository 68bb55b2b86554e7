"""One HTTP/2 connection (RFC 9113) that makes unary gRPC calls in plain text: as little work a call as Python allows.

A gRPC library costs the client of a call about as much as the server; on one machine it would take the processor from what is
measured. This takes a tenth of that, and hands every byte to the kernel the moment a call is due.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from services.load.header_blocks import UNKNOWN_STATUS, request_block, status_in

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
ACK, END_STREAM, END_HEADERS, PADDED, PRIORITY = 1, 1, 4, 8, 32
HEADER_TABLE_SIZE, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 1, 3, 4, 5
FIRST_WINDOW = 65_535
LARGEST_WINDOW = (1 << 31) - 1
GIVEN_BACK_AT = 1 << 28
LARGEST_REQUEST = 16_000
CANCEL = 8
STATUS_OF_RESET = {7: 14, 8: 1, 11: 8}
UNAVAILABLE = 14
CONNECT_SECONDS = 5.0
READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Finished:
    """A call that has ended: its number, gRPC status and the reply's bytes."""

    call: int
    status: int
    reply: bytes


class Http2Connection:
    """Opens at once.

    Args:
        host, port: of the server.
        metadata: sent with every call.
        keep_replies: hand out the replies' bytes; otherwise they are thrown away.

    Raises:
        OSError: nobody listens there.
    """

    def __init__(self, host: str, port: int, metadata: Sequence[tuple[str, str]] = (), *, keep_replies: bool = False) -> None:
        self.socket = socket.create_connection((host, port), CONNECT_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.closed = False
        self.draining = False
        self._authority = f"{host}:{port}"
        self._metadata = tuple(metadata)
        self._keep = keep_replies
        self._blocks: dict[tuple[str, float | None], bytes] = {}
        self._statuses: dict[bytes, int | None] = {}
        self._calls: dict[int, int] = {}
        self._streams: dict[int, int] = {}
        self._replies: dict[int, bytearray] = {}
        self._next_stream = 1
        self._most_streams = LARGEST_WINDOW
        self._window = FIRST_WINDOW
        self._received = 0
        self._held: deque[tuple[int, int, bytes]] = deque()
        self._in = bytearray()
        settings = ((HEADER_TABLE_SIZE, 0), (INITIAL_WINDOW_SIZE, LARGEST_WINDOW), (MAX_FRAME_SIZE, (1 << 24) - 1))
        payload = b"".join(struct.pack(">HI", *one) for one in settings)
        self._out = bytearray(PREFACE + _frame(SETTINGS, 0, 0, payload))
        self._out += _frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", LARGEST_WINDOW - FIRST_WINDOW))
        self.flush()

    @property
    def outstanding(self) -> int:
        """Calls without an answer."""
        return len(self._calls)

    @property
    def usable(self) -> bool:
        """Whether another call may begin on it now."""
        return not self.closed and not self.draining and len(self._calls) < self._most_streams

    @property
    def wants_to_write(self) -> bool:
        return bool(self._out) and not self.closed

    def begin(self, call: int, path: str, message: bytes, timeout: float | None) -> None:
        """Send a call.

        Args:
            call: the caller's number for it.
            path: "/package.Service/Method".
            message: serialised, at most LARGEST_REQUEST bytes.
            timeout: seconds the server is told it has.
        """
        block = self._blocks.get((path, timeout))
        if block is None:
            block = self._blocks[path, timeout] = request_block(self._authority, path, self._metadata, timeout)
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        self._calls[stream], self._streams[call] = call, stream
        if self._keep:
            self._replies[stream] = bytearray()
        body = b"\0" + len(message).to_bytes(4) + message
        frames = _frame(HEADERS, END_HEADERS, stream, block) + _frame(DATA, END_STREAM, stream, body)
        if self._held or self._window < len(body):
            self._held.append((stream, len(body), frames))
            return
        self._window -= len(body)
        self._out += frames

    def cancel(self, call: int) -> None:
        """Give up waiting for a call, and tell the server so."""
        stream = self._streams.pop(call, None)
        if stream is not None and self._calls.pop(stream, None) is not None:
            self._replies.pop(stream, None)
            waiting = next((one for one in self._held if one[0] == stream), None)
            if waiting is not None:
                # The server has never heard of it, and would hang up on who resets what was not begun.
                self._held.remove(waiting)
                return
            self._out += _frame(RST_STREAM, 0, stream, struct.pack(">I", CANCEL))

    def flush(self) -> None:
        """Give the kernel what it takes; a connection that broke is ``closed`` then."""
        try:
            while self._out:
                sent = self.socket.send(self._out)
                del self._out[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self.closed = True

    def receive(self) -> list[Finished]:
        """Read what has come; returns the calls that have ended with it, on a broken connection all of them as UNAVAILABLE."""
        finished: list[Finished] = []
        try:
            while True:
                data = self.socket.recv(READ_BYTES)
                if not data:
                    self.closed = True
                    break
                self._in += data
                if len(data) < READ_BYTES:
                    break
        except BlockingIOError:
            pass
        except OSError:
            self.closed = True
        place, incoming = 0, bytes(self._in)
        while len(incoming) - place >= 9:
            length = int.from_bytes(incoming[place : place + 3])
            if len(incoming) - place - 9 < length:
                break
            kind, flags = incoming[place + 3], incoming[place + 4]
            stream = int.from_bytes(incoming[place + 5 : place + 9]) & LARGEST_WINDOW
            self._take(kind, flags, stream, incoming[place + 9 : place + 9 + length], finished)
            place += 9 + length
        del self._in[:place]
        if self.closed:
            finished += [Finished(call, UNAVAILABLE, b"") for call in self._calls.values()]
            self._calls.clear()
            self._streams.clear()
        return finished

    def close(self) -> None:
        self.closed = True
        self.socket.close()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes, finished: list[Finished]) -> None:
        if kind == DATA:
            self._received += len(payload)
            if self._received >= GIVEN_BACK_AT:
                self._out += _frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", self._received))
                self._received = 0
            if self._keep and stream in self._replies:
                self._replies[stream] += payload
            if flags & END_STREAM:
                self._end(stream, UNKNOWN_STATUS, finished)
        elif kind == HEADERS:
            if flags & END_STREAM:
                status = self._status(payload, flags)
                self._end(stream, UNKNOWN_STATUS if status is None else status, finished)
        elif kind == RST_STREAM:
            self._end(stream, STATUS_OF_RESET.get(int.from_bytes(payload), UNKNOWN_STATUS), finished)
        elif kind == SETTINGS and not flags & ACK:
            for number in range(0, len(payload), 6):
                setting, value = struct.unpack_from(">HI", payload, number)
                if setting == MAX_CONCURRENT_STREAMS:
                    self._most_streams = value
            self._out += _frame(SETTINGS, ACK, 0, b"")
        elif kind == PING and not flags & ACK:
            self._out += _frame(PING, ACK, 0, payload)
        elif kind == GOAWAY:
            self.draining = True
        elif kind == WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload)
            while self._held and self._held[0][1] <= self._window:
                _, size, frames = self._held.popleft()
                self._window -= size
                self._out += frames

    def _status(self, payload: bytes, flags: int) -> int | None:
        start = (1 if flags & PADDED else 0) + (5 if flags & PRIORITY else 0)
        block = payload[start : len(payload) - payload[0]] if flags & PADDED else payload[start:]
        # Trailers of calls that went well are the same few bytes every time.
        if block not in self._statuses:
            if len(self._statuses) > 1000:
                self._statuses.clear()
            self._statuses[block] = status_in(block)
        return self._statuses[block]

    def _end(self, stream: int, status: int, finished: list[Finished]) -> None:
        call = self._calls.pop(stream, None)
        if call is not None:
            del self._streams[call]
            finished.append(Finished(call, status, bytes(self._replies.pop(stream, b""))[5:]))


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload
