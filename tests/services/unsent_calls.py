"""Calls that are opened and whose message never comes, on a connection of their own."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from patience import PATIENCE

from services.load.connection import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    FIRST_WINDOW,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
)
from services.load.header_blocks import request_block, status_in

__all__ = ["DATA", "END_STREAM", "UnsentCalls"]


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


class UnsentCalls:
    """Open from the start; a context manager that hangs up. ``window`` is what each lets the server send, in bytes.

    Attributes:
        ended: streams that the server has ended.
        statuses: of those, where it said one.
    """

    def __init__(self, address: str, path: str, calls: int, window: int = FIRST_WINDOW) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=PATIENCE)
        self._received = b""
        self.ended: set[int] = set()
        self.statuses: dict[int, int] = {}
        self.closed = False
        self._socket.sendall(
            PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HIHI", HEADER_TABLE_SIZE, 0, INITIAL_WINDOW_SIZE, window))
        )
        self._address, self._path, self._next = address, path, 1
        self.open(calls)

    def open(self, calls: int) -> None:
        """Open so many more."""
        block = request_block(self._address, self._path, (), None)
        streams = range(self._next, self._next + 2 * calls, 2)
        self._next += 2 * calls
        self._socket.sendall(b"".join(frame(HEADERS, END_HEADERS, stream, block) for stream in streams))

    def send(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        self._socket.sendall(frame(kind, flags, stream, payload))

    def read(self, seconds: float = 0.05) -> None:
        """Take what the server says, as long as it does not fall silent for so many seconds."""
        while not self.closed and select.select([self._socket], [], [], seconds)[0]:
            received = self._socket.recv(1 << 16)
            self.closed = not received
            self._received += received
            while len(self._received) >= 9 and len(self._received) >= 9 + (size := int.from_bytes(self._received[:3])):
                kind, flags = self._received[3], self._received[4]
                stream = int.from_bytes(self._received[5:9])
                if kind == RST_STREAM or (kind == HEADERS and flags & END_STREAM):
                    self.ended.add(stream)
                    status = status_in(self._received[9 : 9 + size]) if kind == HEADERS else None
                    if status is not None:
                        self.statuses[stream] = status
                elif kind == SETTINGS and not flags & ACK:
                    self._acknowledge(SETTINGS, b"")
                elif kind == PING and not flags & ACK:
                    self._acknowledge(PING, self._received[9 : 9 + size])
                self._received = self._received[9 + size :]

    @contextlib.contextmanager
    def answering_pings(self) -> Iterator[None]:
        """Read until the server hangs up, while the block runs; it waits some 20 s for a peer that does not answer."""
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(self.read, 2 * PATIENCE)
            yield
            reading.result()

    def _acknowledge(self, kind: int, payload: bytes) -> None:
        # A server that stops may be gone, and what it said before is still to be read.
        with contextlib.suppress(ConnectionError):
            self._socket.sendall(frame(kind, ACK, 0, payload))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._socket.close()
