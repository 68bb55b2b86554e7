"""What passes through Redis, as bytes: a checksum, a JSON head, and rows as they stand in LMDB.

    crc32 u32 of all that follows | head bytes u32 | head (JSON) | rows x (key bytes u16, value bytes u32, key, value)

The head tells the kind, and how many rows of which database follow. Little-endian. Nothing in a message is ever executed or
imported: a message is JSON and byte strings.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any
from zlib import crc32

from llmgr_core.store import Encoder
from llmgr_core.store.change_blocks import ChangeBlock, Description, Row
from llmgr_core.store.whole_copy import COPIED, CopyEnd, CopyHead, CopyPart

VERSION = 1
_SUM = struct.Struct("<I")
_ROW = struct.Struct("<HI")

CopyMessage = CopyHead | CopyPart | CopyEnd


class DamagedMessageError(Exception):
    """Bytes that are not what was sent."""


class ForeignMessageError(Exception):
    """A message of another version of this program."""


def pack_block(block: ChangeBlock) -> bytes:
    """A block of changes."""
    head = {
        "epoch": block.epoch,
        "after": block.after,
        "after_sum": block.after_sum,
        "sequence": block.sequence,
        "sequence_sum": block.sequence_sum,
        "description": asdict(block.description),
    }
    return _packed("changes", head, block.rows)


def unpack_block(message: bytes) -> ChangeBlock:
    """Inverse of pack_block; the records' own checksums are the caller's to look at.

    Raises:
        DamagedMessageError, ForeignMessageError: see the classes.
    """
    kind, head, rows = _unpacked(message)
    if kind != "changes":
        raise DamagedMessageError(f"a message of kind {kind} among the changes")
    try:
        return ChangeBlock(
            head["epoch"],
            head["after"],
            head["after_sum"],
            head["sequence"],
            head["sequence_sum"],
            _description(head["description"]),
            rows,
        )
    except (KeyError, TypeError) as error:
        raise DamagedMessageError(f"changes without {error}") from None


def pack_copy(number: int, message: CopyMessage) -> bytes:
    """One message of a whole copy.

    Args:
        number: its place, from 0.
    """
    if isinstance(message, CopyHead):
        return _packed("copy", {"number": number, "part": "head", **asdict(message)}, {})
    if isinstance(message, CopyEnd):
        return _packed("copy", {"number": number, "part": "end", "counts": dict(message.rows)}, {})
    return _packed("copy", {"number": number, "part": "rows"}, {message.database: message.rows})


def unpack_copy(message: bytes) -> tuple[int, CopyMessage]:
    """Inverse of pack_copy.

    Raises:
        DamagedMessageError, ForeignMessageError: see the classes.
    """
    kind, head, rows = _unpacked(message)
    try:
        number = int(head["number"])
        if kind != "copy":
            raise DamagedMessageError(f"a message of kind {kind} in a copy")
        if head["part"] == "head":
            description = _description(head["description"])
            return number, CopyHead(head["epoch"], head["sequence"], head["pruned"], head["live"], description)
        if head["part"] == "end":
            return number, CopyEnd({name: int(count) for name, count in head["counts"].items()})
        ((database, part),) = rows.items()
        return number, CopyPart(database, part)
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedMessageError(f"no message of a copy: {error}") from None


def _description(values: Mapping[str, Any]) -> Description:
    return Description(tuple(Encoder(**one) for one in values["encoders"]), values["active"])


def _packed(kind: str, head: Mapping[str, Any], rows: Mapping[str, Iterable[Row]]) -> bytes:
    listed = {name: list(some) for name, some in rows.items()}
    counts = [[name, len(some)] for name, some in listed.items()]
    text = json.dumps({"version": VERSION, "kind": kind, **head, "rows": counts}).encode()
    parts = [_SUM.pack(len(text)), text]
    for some in listed.values():
        for key, value in some:
            parts += (_ROW.pack(len(key), len(value)), key, value)
    body = b"".join(parts)
    return _SUM.pack(crc32(body)) + body


def _unpacked(message: bytes) -> tuple[str, dict[str, Any], dict[str, tuple[Row, ...]]]:
    if len(message) < 2 * _SUM.size or crc32(message[_SUM.size :]) != _SUM.unpack_from(message)[0]:
        raise DamagedMessageError(f"a message of {len(message)} bytes fails its checksum")
    start = 2 * _SUM.size
    end = start + _SUM.unpack_from(message, _SUM.size)[0]
    try:
        head = json.loads(message[start:end])
        if head["version"] != VERSION:
            raise ForeignMessageError(
                f"a message of version {head['version']}; this program reads {VERSION}: run the same version on all hosts"
            )
        rows: dict[str, tuple[Row, ...]] = {}
        for name, count in head["rows"]:
            if name not in COPIED:
                raise DamagedMessageError(f"rows of {name!r}")
            rows[name], end = _rows(message, end, count)
        if end != len(message):
            raise DamagedMessageError(f"{len(message) - end} bytes too many")
        return str(head["kind"]), head, rows
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise DamagedMessageError(f"a message that cannot be read: {error}") from None


def _rows(message: bytes, start: int, count: int) -> tuple[tuple[Row, ...], int]:
    rows = []
    for _ in range(count):
        key_bytes, value_bytes = _ROW.unpack_from(message, start)
        key_end = start + _ROW.size + key_bytes
        rows.append((message[start + _ROW.size : key_end], message[key_end : key_end + value_bytes]))
        start = key_end + value_bytes
    return tuple(rows), start
