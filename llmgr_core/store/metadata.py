"""What a store says about itself: database meta."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmgr_core.store.environment import Environment
from llmgr_core.store.errors import StoreError
from llmgr_core.store.records import fingerprint_key

APPLICATION = b"llmgr embedding store"
SCHEMA = 1
_APPLICATION, _SCHEMA, _EPOCH, _ACTIVE, _ENCODER = b"application", b"schema", b"epoch", b"active", b"encoder:"
_LIVE = b"live"


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
        return bytes(transaction.get(_EPOCH, db=meta)).decode()


def read_active(transaction: Any, meta: Any) -> str | None:
    """Fingerprint that is served, or None before the first one is made active."""
    value = transaction.get(_ACTIVE, db=meta)
    return None if value is None else bytes(value).decode()


def write_active(transaction: Any, meta: Any, fingerprint: str) -> None:
    """Make a fingerprint the one that is served."""
    transaction.put(_ACTIVE, fingerprint.encode(), db=meta)


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
    if cursor.set_range(_ENCODER):
        for key, value in cursor:
            if not bytes(key).startswith(_ENCODER):
                break
            encoders[bytes(key[len(_ENCODER) :])] = Encoder(**json.loads(bytes(value)))
    return encoders


def write_encoder(transaction: Any, meta: Any, encoder: Encoder) -> None:
    """Note an encoder.

    Raises:
        StoreError: the fingerprint is known with another number of dimensions.
    """
    key = _ENCODER + fingerprint_key(encoder.fingerprint)
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
