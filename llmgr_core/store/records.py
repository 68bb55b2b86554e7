"""Bytes of one record, for each database of the store.

All integers are little-endian, but the sequence number in the key of a change, which is big-endian so that LMDB sorts by it.
Every record carries a CRC-32 over all that follows it: LMDB itself does not notice a flipped bit in a value.

    vectors   key    fingerprint key (16) | text hash (16)
              value  "LGRv" | crc u32 | version u8 | type u8 | 0 u16 | dimensions u32 | numbers fp16
    items     key    0x00 | id in UTF-8, or, where that is longer than 510 bytes, 0x01 | BLAKE2b-256 of it
              value  "LGRi" | crc u32 | version u8 | deleted u8 | texts u16 | id bytes u32 | sequence u64 | time ns u64
                     | texts x (fingerprint key 16, text hash 16) | id | record as inserted
    changes   key    sequence u64, big-endian
              value  "LGRc" | crc u32 (the key goes into it too) | version u8 | operation u8 | 0 u16
                     | fingerprint key (16) | id
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from typing import NamedTuple
from zlib import crc32

import numpy as np

from llmgr_core.store.errors import VectorError

VERSION = 1
FLOAT16 = 1
HASH_BYTES = 16
LONGEST_RAW_ID = 510
NO_FINGERPRINT = bytes(HASH_BYTES)

_VECTOR = struct.Struct("<4sIBBHI")
_ITEM = struct.Struct("<4sIBBHIQQ")
_CHANGE = struct.Struct("<4sIBBH")
_SEQUENCE = struct.Struct(">Q")
_VECTOR_MAGIC, _ITEM_MAGIC, _CHANGE_MAGIC = b"LGRv", b"LGRi", b"LGRc"
# Magic and sum; what follows is summed.
_SUMMED_FROM = 8

Buffer = bytes | memoryview


class DamagedRecordError(Exception):
    """A record whose bytes are not what was written; the text says how it shows."""


class Operation(IntEnum):
    """What a change did."""

    UPSERT = 1
    DELETE = 2


class ItemRecord(NamedTuple):
    """One row of database items.

    Attributes:
        item_id: the catalogue's id.
        record: the item as inserted (opaque to the store); empty for a deleted item that was never inserted.
        texts: hash of the cleaned text, by fingerprint key; a vector stands under each pair.
        sequence: place of the item's last change in the change log.
        deleted: a tombstone.
        updated_ns: when that was, nanoseconds since 1970.
    """

    item_id: str
    record: bytes
    texts: Mapping[bytes, bytes]
    sequence: int = 0
    deleted: bool = False
    updated_ns: int = 0


@dataclass(frozen=True)
class Change:
    """One row of the change log.

    Attributes:
        sequence: its place, from 1 without gaps.
        item_id: what changed.
        operation: inserted or edited, or deleted.
        fingerprint_key: of the vector that came with it; zeros for a deletion.
    """

    sequence: int
    item_id: str
    operation: Operation
    fingerprint_key: bytes = NO_FINGERPRINT


def fingerprint_key(fingerprint: str) -> bytes:
    """The 16 bytes that stand for an encoder fingerprint in keys."""
    return blake2b(fingerprint.encode("utf-8"), digest_size=HASH_BYTES, person=b"llmgr.encoder").digest()


def text_hash(text: str) -> bytes:
    """The 16 bytes that stand for a cleaned text in keys."""
    return blake2b(text.encode("utf-8"), digest_size=HASH_BYTES, person=b"llmgr.text").digest()


def item_key(item_id: str) -> bytes:
    """Key of an item; LMDB takes at most 511 bytes, so longer ids are hashed."""
    raw = item_id.encode("utf-8")
    if len(raw) <= LONGEST_RAW_ID:
        return b"\x00" + raw
    return b"\x01" + blake2b(raw, digest_size=32, person=b"llmgr.item").digest()


def sequence_key(sequence: int) -> bytes:
    """Key of a change."""
    return _SEQUENCE.pack(sequence)


def sequence_of(key: Buffer) -> int:
    """Inverse of sequence_key; of a key whose length is damaged, what its beginning says (its checksum fails)."""
    return int.from_bytes(bytes(key[: _SEQUENCE.size]).ljust(_SEQUENCE.size, b"\0"), "big")


def half_precision(vector: np.ndarray) -> np.ndarray:
    """A vector as it will be stored, float16 [D].

    Raises:
        VectorError: not one-dimensional, empty, NaN, infinite, or beyond the largest half-precision number (65,504).
    """
    if vector.ndim != 1 or vector.size == 0:
        raise VectorError(f"a vector of shape {vector.shape} cannot be stored", "give one dimension")
    with np.errstate(over="ignore"):
        half = np.ascontiguousarray(vector, dtype="<f2")
    if not np.isfinite(half).all():
        wrong = int(np.flatnonzero(~np.isfinite(half))[0])
        raise VectorError(f"number {wrong} of the vector is {vector[wrong]}, which half precision cannot hold")
    return half


def pack_vector(half: np.ndarray) -> bytes:
    """Row of a float16 [D] vector that half_precision has passed."""
    return _sealed(_VECTOR.pack(_VECTOR_MAGIC, 0, VERSION, FLOAT16, 0, half.size) + half.tobytes())


def vector_payload(row: Buffer) -> Buffer:
    """The numbers of a vector row, still as bytes; views a memoryview, copies nothing.

    Raises:
        DamagedRecordError: the row is not as it was written.
    """
    if len(row) < _VECTOR.size:
        raise DamagedRecordError(f"no vector record ({len(row)} bytes)")
    magic, crc, version, kind, _, dimensions = _VECTOR.unpack_from(row)
    if magic != _VECTOR_MAGIC or version != VERSION or crc32(row[_SUMMED_FROM:]) != crc:
        raise _damage("vector", magic == _VECTOR_MAGIC, version)
    payload = row[_VECTOR.size :]
    if kind != FLOAT16 or len(payload) != 2 * dimensions:
        raise DamagedRecordError(f"vector of type {kind} with {dimensions} numbers in {len(payload)} bytes")
    return payload


def pack_item(item: ItemRecord) -> bytes:
    """Row of an item."""
    raw_id = item.item_id.encode("utf-8")
    head = _ITEM.pack(_ITEM_MAGIC, 0, VERSION, item.deleted, len(item.texts), len(raw_id), item.sequence, item.updated_ns)
    return _sealed(b"".join([head, *(key + item.texts[key] for key in sorted(item.texts)), raw_id, item.record]))


def unpack_item(row: Buffer) -> ItemRecord:
    """Inverse of pack_item.

    Raises:
        DamagedRecordError: the row is not as it was written.
    """
    if len(row) < _ITEM.size:
        raise DamagedRecordError(f"no item record ({len(row)} bytes)")
    magic, crc, version, deleted, texts, id_bytes, sequence, updated_ns = _ITEM.unpack_from(row)
    if magic != _ITEM_MAGIC or version != VERSION or crc32(row[_SUMMED_FROM:]) != crc:
        raise _damage("item", magic == _ITEM_MAGIC, version)
    body = bytes(row[_ITEM.size :])
    pairs = {}
    start = 0
    for _ in range(texts):
        pairs[body[start : start + HASH_BYTES]] = body[start + HASH_BYTES : start + 2 * HASH_BYTES]
        start += 2 * HASH_BYTES
    end = start + id_bytes
    try:
        item_id = body[start:end].decode("utf-8")
    except UnicodeDecodeError as error:
        raise DamagedRecordError(f"the id of an item record cannot be read: {error}") from None
    return ItemRecord(item_id, body[end:], pairs, sequence, bool(deleted), updated_ns)


def unpack_item_at(key: Buffer, row: Buffer) -> ItemRecord:
    """Inverse of pack_item for a row of the database.

    Raises:
        DamagedRecordError: the row is not as it was written, or not where.
    """
    item = unpack_item(row)
    if item_key(item.item_id) != key:
        raise DamagedRecordError(f"the record of item {item.item_id!r} stands under another item's key")
    return item


def last_change(item: ItemRecord) -> Change:
    """The change that left an item as it is; of several encoders' vectors it names the first."""
    if item.deleted:
        return Change(item.sequence, item.item_id, Operation.DELETE)
    return Change(item.sequence, item.item_id, Operation.UPSERT, next(iter(item.texts), NO_FINGERPRINT))


def pack_change(change: Change) -> bytes:
    """Row of a change; the sequence is its key."""
    head = _CHANGE.pack(_CHANGE_MAGIC, 0, VERSION, change.operation, 0)
    # The key goes into the sum: a row that moved to another place is damaged too.
    return _sealed(head + change.fingerprint_key + change.item_id.encode("utf-8"), crc32(sequence_key(change.sequence)))


def unpack_change(key: Buffer, row: Buffer) -> Change:
    """Inverse of pack_change.

    Raises:
        DamagedRecordError: the row is not as it was written.
    """
    start = _CHANGE.size + HASH_BYTES
    if len(row) < start:
        raise DamagedRecordError(f"no change record ({len(row)} bytes)")
    magic, crc, version, operation, _ = _CHANGE.unpack_from(row)
    if magic != _CHANGE_MAGIC or version != VERSION or crc32(row[_SUMMED_FROM:], crc32(key)) != crc:
        raise _damage("change", magic == _CHANGE_MAGIC, version)
    try:
        item_id, kind = bytes(row[start:]).decode("utf-8"), Operation(operation)
    except ValueError as error:
        raise DamagedRecordError(f"change record cannot be read: {error}") from None
    return Change(sequence_of(key), item_id, kind, bytes(row[_CHANGE.size : start]))


def _sealed(row: bytes, before: int = 0) -> bytes:
    """A row with its sum put in; ``before`` is the sum of what goes before it."""
    return row[:4] + crc32(row[_SUMMED_FROM:], before).to_bytes(4, "little") + row[_SUMMED_FROM:]


def _damage(what: str, known: bool, version: int) -> DamagedRecordError:
    if not known:
        return DamagedRecordError(f"no {what} record")
    if version != VERSION:
        return DamagedRecordError(f"{what} record of version {version}, or it fails its checksum")
    return DamagedRecordError(f"{what} record fails its checksum")
