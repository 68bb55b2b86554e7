"""A client of EmbedItems that keeps to HTTP/2, and lets the server send it nothing."""

from __future__ import annotations

import select
import socket
import struct
from types import TracebackType
from typing import Self

from patience import PATIENCE

from llmgr_core.data.item import Item
from services.contract import embedding_service_pb2 as messages
from services.item_messages import item_message
from services.load.connection import (
    ACK,
    DATA,
    END_HEADERS,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PING,
    PREFACE,
    SETTINGS,
    WINDOW_UPDATE,
)
from services.load.header_blocks import request_block

PATH = "/llmgr.v1.EmbeddingService/EmbedItems"
STREAM = 1
FIRST_WINDOW = 65_535
# So long without leave to send: the server reads no further.
SILENCE_SECONDS = 2.0


class UnreadStream:
    """Open from the start; a context manager that hangs up."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=PATIENCE)
        self._windows = {0: FIRST_WINDOW, STREAM: FIRST_WINDOW}
        self._first_window = FIRST_WINDOW
        self._received = b""
        self._socket.sendall(PREFACE + _frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, 0)))
        self._socket.sendall(_frame(HEADERS, END_HEADERS, STREAM, request_block(address, PATH, (), None)))

    def send_until_it_stops(self, item: Item, most: int) -> int:
        """Send the item, under another id each time, until the server takes no more; returns the bytes it took."""
        sent = 0
        while sent < most:
            numbered = messages.EmbedItemsRequest(item=item_message(item))
            numbered.item.item_id += f"-{sent}"
            body = numbered.SerializeToString()
            body = b"\0" + len(body).to_bytes(4) + body
            while min(self._windows.values()) < len(body):
                if not self._receive():
                    return sent
            for window in self._windows:
                self._windows[window] -= len(body)
            self._socket.sendall(_frame(DATA, 0, STREAM, body))
            sent += len(body)
        return sent

    def _receive(self) -> bool:
        """Take what the server says of itself; False where it says nothing for a while."""
        if not select.select([self._socket], [], [], SILENCE_SECONDS)[0]:
            return False
        received = self._socket.recv(1 << 16)
        assert received, "the server hung up"
        self._received += received
        while len(self._received) >= 9 and len(self._received) >= 9 + (size := int.from_bytes(self._received[:3])):
            kind, flags = self._received[3], self._received[4]
            stream = int.from_bytes(self._received[5:9])
            self._take(kind, flags, stream, self._received[9 : 9 + size])
            self._received = self._received[9 + size :]
        return True

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == WINDOW_UPDATE:
            self._windows[stream] += int.from_bytes(payload)
        elif kind == SETTINGS and not flags & ACK:
            for number in range(0, len(payload), 6):
                setting, given = struct.unpack_from(">HI", payload, number)
                if setting == INITIAL_WINDOW_SIZE:
                    self._windows[STREAM] += given - self._first_window
                    self._first_window = given
            self._socket.sendall(_frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            self._socket.sendall(_frame(PING, ACK, 0, payload))
        assert kind != DATA

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._socket.close()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload
