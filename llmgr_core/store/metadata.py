"""What a store says about itself: database meta."""

from __future__ import annotations

import json
import secrets
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmgr_core.store.environment import Environment
from llmgr_core.store.errors import StoreDamagedError, StoreError
from llmgr_core.store.records import fingerprint_key

APPLICATION = b"llmgr embedding store"
SCHEMA = 1
ACTIVE, ENCODER = b"active", b"encoder:"
_APPLICATION, _SCHEMA, _EPOCH = b"application", b"schema", b"epoch"
_LIVE, _PRUNED, _CHECKSUM, _REPLICATED = b"live", b"pruned", b"checksum", b"replicated"
_NEXT = b"next"


@dataclass(frozen=True)
class Encoder:
    """A fingerprint that vectors of the store stand under.

    Attributes:
        fingerprint: of base model, adapter, prompt, cleaner and pooling (hex).
        dimensions: numbers per vector, D.
        description: for people, for example the name of the base model.
    """

    fingerprint: str
    dimensions: int
    description: str = ""


def initialise(environment: Environment) -> None:
    """Write what every store holds from the start, unless it is there."""
    meta = environment.database("meta")
    with environment.write() as transaction:
        if transaction.get(_APPLICATION, db=meta) is None:
            # Not ours unless it is empty: a foreign file must not be made into a store.
            if any(transaction.stat(environment.database(name))["entries"] for name in ("vectors", "items", "changes", "meta")):
                return
            transaction.put(_APPLICATION, APPLICATION, db=meta)
            transaction.put(_SCHEMA, str(SCHEMA).encode(), db=meta)
            transaction.put(_EPOCH, secrets.token_hex(16).encode(), db=meta)
            _seal(transaction, meta)


def read_epoch(environment: Environment) -> str:
    """The store's identity, after checking that it is a store of this version.

    Raises:
        StoreError: an LMDB file of something else, or a store of another schema.
    """
    path: Path = environment.directory
    meta = environment.database("meta")
    with environment.read() as transaction:
        application = transaction.get(_APPLICATION, db=meta)
        if application is None or bytes(application) != APPLICATION:
            raise StoreError(f"{path} is an LMDB file, but not an embedding store", "check the path")
        schema = bytes(transaction.get(_SCHEMA, db=meta, default=b"?"))
        if schema != str(SCHEMA).encode():
            raise StoreError(
                f"{path} has schema {schema.decode(errors='replace')}; this program reads schema {SCHEMA}",
                "embed into a new directory with this version of llmgr",
            )
        if not is_whole(transaction, meta):
            raise StoreDamagedError(
                f"what {path} says about itself fails its checksum (data loss)", "`llmgr store repair` writes it anew"
            )
        return bytes(transaction.get(_EPOCH, db=meta)).decode()


def is_whole(transaction: Any, meta: Any) -> bool:
    """Whether the records of this database are as they were written; the number of live items is told by the items."""
    checksum = transaction.get(_CHECKSUM, db=meta)
    # Stores of before there was a checksum have none.
    return checksum is None or bytes(checksum) == _checksum(transaction, meta)


def mend(transaction: Any, meta: Any) -> list[str]:
    """Drop encoder records that cannot be read and give the store a new epoch; what was done, a line each."""
    done = []
    cursor = transaction.cursor(db=meta)
    for key, value in [(bytes(key), bytes(value)) for key, value in cursor if bytes(key).startswith(ENCODER)]:
        if encoder_of(key, value) is None:
            transaction.delete(key, db=meta)
            done.append(f"encoder key {key[len(ENCODER) :].hex()[:12]}: its record could not be read; `llmgr embed` writes it")
    names = {one.fingerprint for one in read_encoders(transaction, meta).values()}
    active = bytes(transaction.get(ACTIVE, db=meta, default=b"")).decode(errors="replace")
    if active and active not in names:
        transaction.delete(ACTIVE, db=meta)
        done.append("the active encoder was not among the encoders: activate one with `llmgr store activate`")
    transaction.put(_EPOCH, secrets.token_hex(16).encode(), db=meta)
    done.append("the store has a new epoch: sequences of before mean nothing to it")
    _seal(transaction, meta)
    return done


def encoder_of(key: bytes, value: bytes) -> Encoder | None:
    """The encoder that a row under ENCODER tells of; None where the row is not what was written."""
    try:
        encoder = Encoder(**json.loads(value))
        sound = fingerprint_key(encoder.fingerprint) == key[len(ENCODER) :] and encoder.dimensions > 0
    except (ValueError, TypeError, AttributeError):
        return None
    return encoder if sound else None


def read_pruned(transaction: Any, meta: Any) -> int:
    """Up to this sequence the change log may have gaps: changes that a later one of the same item stands for."""
    return int(bytes(transaction.get(_PRUNED, db=meta, default=b"0")))


def write_pruned(transaction: Any, meta: Any, sequence: int) -> None:
    """Note that changes up to a sequence may be gone."""
    if sequence > read_pruned(transaction, meta):
        transaction.put(_PRUNED, str(sequence).encode(), db=meta)
        _seal(transaction, meta)


def read_replicated(transaction: Any, meta: Any) -> int | None:
    """Of a replica, the sequence up to which it holds its source's changes; None for a store of its own."""
    value = transaction.get(_REPLICATED, db=meta)
    return None if value is None else int(bytes(value))


def write_replicated(transaction: Any, meta: Any, sequence: int, epoch: str | None = None) -> None:
    """Make a store a replica, or note how far it has come.

    Args:
        epoch: of its source, which is the replica's own too; None leaves it.
    """
    transaction.put(_REPLICATED, str(sequence).encode(), db=meta)
    if epoch is not None:
        transaction.put(_EPOCH, epoch.encode(), db=meta)
    _seal(transaction, meta)


def write_own(transaction: Any, meta: Any) -> None:
    """Make a replica a store of its own, with an epoch of its own."""
    transaction.delete(_REPLICATED, db=meta)
    transaction.put(_EPOCH, secrets.token_hex(16).encode(), db=meta)
    _seal(transaction, meta)


def forget_encoder(transaction: Any, meta: Any, fingerprint: str) -> None:
    """Take an encoder out of the list, after its vectors."""
    transaction.delete(ENCODER + fingerprint_key(fingerprint), db=meta)
    _seal(transaction, meta)


def _checksum(transaction: Any, meta: Any) -> bytes:
    crc = 0
    for key, value in transaction.cursor(db=meta):
        if bytes(key) not in (_LIVE, _CHECKSUM):
            crc = zlib.crc32(bytes(value), zlib.crc32(bytes(key), crc))
    return crc.to_bytes(4, "little")


def _seal(transaction: Any, meta: Any) -> None:
    transaction.put(_CHECKSUM, _checksum(transaction, meta), db=meta)


def read_active(transaction: Any, meta: Any) -> str | None:
    """Fingerprint that is served, or None before the first one is made active."""
    value = transaction.get(ACTIVE, db=meta)
    return None if value is None else bytes(value).decode()


def read_next(transaction: Any, meta: Any) -> str | None:
    """Fingerprint of an encoder that the catalogue is being embedded with, item by item; None where there is none."""
    value = transaction.get(_NEXT, db=meta)
    return None if value is None else bytes(value).decode()


def write_next(transaction: Any, meta: Any, fingerprint: str | None) -> None:
    """Note that a catalogue is being embedded with another encoder, or no longer is."""
    if fingerprint is None:
        transaction.delete(_NEXT, db=meta)
    else:
        transaction.put(_NEXT, fingerprint.encode(), db=meta)
    _seal(transaction, meta)


def write_active(transaction: Any, meta: Any, fingerprint: str) -> None:
    """Make a fingerprint the one that is served."""
    transaction.put(ACTIVE, fingerprint.encode(), db=meta)
    if read_next(transaction, meta) == fingerprint:
        transaction.delete(_NEXT, db=meta)
    _seal(transaction, meta)


def read_live(transaction: Any, meta: Any) -> int:
    """Items that are not deleted."""
    return int(bytes(transaction.get(_LIVE, db=meta, default=b"0")))


def write_live(transaction: Any, meta: Any, live: int) -> None:
    """Note how many items are not deleted."""
    transaction.put(_LIVE, str(live).encode(), db=meta)


def read_encoders(transaction: Any, meta: Any) -> dict[bytes, Encoder]:
    """Every encoder that vectors stand under, by fingerprint key."""
    encoders = {}
    cursor = transaction.cursor(db=meta)
    if cursor.set_range(ENCODER):
        for key, value in cursor:
            if not bytes(key).startswith(ENCODER):
                break
            encoders[bytes(key[len(ENCODER) :])] = Encoder(**json.loads(bytes(value)))
    return encoders


def write_encoder(transaction: Any, meta: Any, encoder: Encoder) -> None:
    """Note an encoder.

    Raises:
        StoreError: the fingerprint is known with another number of dimensions.
    """
    key = ENCODER + fingerprint_key(encoder.fingerprint)
    known = transaction.get(key, db=meta)
    if known is not None:
        dimensions = json.loads(bytes(known))["dimensions"]
        if dimensions != encoder.dimensions:
            raise StoreError(
                f"encoder {encoder.fingerprint[:12]} makes vectors of {encoder.dimensions} numbers, "
                f"but the store holds vectors of {dimensions} under the same fingerprint",
                "embed into a new directory",
            )
        return
    value = {
        "fingerprint": encoder.fingerprint,
        "dimensions": encoder.dimensions,
        "description": encoder.description,
    }
    transaction.put(key, json.dumps(value).encode(), db=meta)
    _seal(transaction, meta)
