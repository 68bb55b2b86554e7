"""Finding records in a file whose pages no longer hang together, page by page, without LMDB.

Each record carries its own checksum, so whatever passes it was written as it is. Among it are states of the past: LMDB never
writes over a page that the last state stands on, and pages given back keep their old contents until they are used again.
"""

from __future__ import annotations

import mmap
import resource
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from llmgr_core.store import metadata
from llmgr_core.store.metadata import Encoder
from llmgr_core.store.records import (
    Change,
    DamagedRecordError,
    ItemRecord,
    fingerprint_key,
    unpack_change,
    unpack_item_at,
    vector_payload,
)

# LMDB 0.9 on 64 bits. Page: number u64, pad u16, flags u16, lower u16, upper u16, then the places of its nodes, u16 each.
# Node: size u32, flags u16, key length u16, key, value; a large value stands on pages of its own, by the number of the first.
_PAGE = struct.Struct("<8xHHHH")
_NODE = struct.Struct("<IHH")
_NUMBER = struct.Struct("<Q")
_OVERFLOW, _LARGE_VALUE = 0x04, 0x01
_LONGEST_KEY = 511


@dataclass
class Carved:
    """What was found, the newest state of each.

    Attributes:
        vectors: rows by key.
        items: by id.
        changes: newest change of each item.
        encoders: by fingerprint key.
        active: fingerprints that were the active one in some state.
    """

    vectors: dict[bytes, bytes] = field(default_factory=dict)
    items: dict[str, ItemRecord] = field(default_factory=dict)
    changes: dict[str, Change] = field(default_factory=dict)
    encoders: dict[bytes, Encoder] = field(default_factory=dict)
    active: set[str] = field(default_factory=set)


def carve(path: Path) -> Carved:
    """Everything in a store's data.mdb that passes its checksum."""
    carved = Carved()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for key, value in _nodes(memoryview(content)):
            _take(carved, key, value)
    return carved


def _take(carved: Carved, key: bytes, value: bytes) -> None:
    try:
        if value[:4] == b"LGRv" and len(key) == 32:
            vector_payload(value)
            carved.vectors[key] = value
        elif value[:4] == b"LGRi":
            item = unpack_item_at(key, value)
            known = carved.items.get(item.item_id)
            if known is None or _age(known) < _age(item):
                carved.items[item.item_id] = item
        elif value[:4] == b"LGRc" and len(key) == 8:
            change = unpack_change(key, value)
            newest = carved.changes.get(change.item_id)
            if newest is None or newest.sequence < change.sequence:
                carved.changes[change.item_id] = change
        elif key.startswith(metadata.ENCODER):
            encoder = metadata.encoder_of(key, value)
            if encoder is not None:
                carved.encoders[fingerprint_key(encoder.fingerprint)] = encoder
        elif key == metadata.ACTIVE:
            carved.active.add(value.decode())
    except (DamagedRecordError, UnicodeDecodeError):
        return


def _age(item: ItemRecord) -> tuple[int, int]:
    return item.sequence, item.updated_ns


def _nodes(content: memoryview) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of whatever looks like a node, whatever the page says it is."""
    size = resource.getpagesize()
    try:
        for start in range(0, len(content) - size + 1, size):
            flags, lower, upper = _PAGE.unpack_from(content, start)[1:]
            if flags == _OVERFLOW:
                continue
            plausible = _PAGE.size <= lower <= upper <= size and lower % 2 == 0
            for place in range(_PAGE.size, lower if plausible else size - 1, 2):
                offset = int.from_bytes(content[start + place : start + place + 2], "little")
                if _PAGE.size <= offset <= size - _NODE.size:
                    yield from _node(content, start, offset, size)
    finally:
        content.release()


def _node(content: memoryview, start: int, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    length, flags, key_length = _NODE.unpack_from(content, start + offset)
    key_at = start + offset + _NODE.size
    value_at = key_at + key_length
    if not 0 < key_length <= _LONGEST_KEY or value_at > start + size:
        return
    if flags & _LARGE_VALUE:
        if value_at + _NUMBER.size > start + size:
            return
        value_at = _NUMBER.unpack_from(content, value_at)[0] * size + _PAGE.size
    elif value_at + length > start + size:
        return
    if value_at + length <= len(content):
        yield bytes(content[key_at : key_at + key_length]), bytes(content[value_at : value_at + length])
