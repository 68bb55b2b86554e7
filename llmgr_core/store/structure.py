"""Whether the pages of an LMDB file hang together: checked without LMDB, which trusts them and may crash on bad ones."""

from __future__ import annotations

import os
import re
import resource
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import BinaryIO

PAGE_CLASSES = {0x01: "branch", 0x02: "leaf", 0x04: "overflow", 0x08: "meta"}
# LMDB 0.9: page number u64, pad u16, flags u16.
_FLAGS = struct.Struct("<8xHH")
# Behind the page's head (16): magic, version, address, map size, two databases of 48 bytes, last page.
_TRANSACTION_AT = 16 + 4 + 4 + 8 + 8 + 2 * 48 + 8
TRIES, PAUSE_S = 20, 0.005
_PAGE = re.compile(r"page (\d+)")
_FREE_LIST = re.compile(r"\bfree|leak", re.IGNORECASE)


@dataclass(frozen=True)
class StructureProblem:
    """Something wrong with a page.

    Attributes:
        page_class: "meta", "branch", "leaf", "overflow", "free list", or "unknown" for a page whose own mark is damaged.
        page: its number; None where the problem is not one page's.
        text: what is wrong.
    """

    page_class: str
    page: int | None
    text: str

    def __str__(self) -> str:
        return f"{self.page_class} page{'' if self.page is None else f' {self.page}'}: {self.text}"


def structure_problems(path: Path) -> list[StructureProblem]:
    """Everything that is wrong with how the pages of a file hang together; nothing with lmdb before 3.0, which cannot tell.

    Flipped bits inside a value are not among it: each record's own checksum tells those.

    Args:
        path: data.mdb. While a writer may be at work, hold a read transaction, so that no page of this state is used again.
    """
    try:
        from lmdb import verify
    except ImportError:
        return []
    try:
        found: Iterable[str] = verify.verify(str(path), subdir=False)  # type: ignore[no-untyped-call]
    except verify.VerifyError as error:
        return [StructureProblem("meta", _page(str(error)), str(error))]
    with path.open("rb") as file:
        problems = [_classified(file, text) for text in found]
    if (wrong := _wrong_numbers(path)) is not None:
        problems.append(StructureProblem("meta", None, wrong))
    return problems


def _wrong_numbers(path: Path) -> str | None:
    """What is wrong with the transaction numbers of the two meta pages.

    Transactions take turns on them, so one number is always the other's successor. Where a bit of the newer one has flipped,
    LMDB takes the older one for the newest: the last transaction would be gone, and nothing would tell of it.
    """
    with path.open("rb", buffering=0) as file:
        for _ in range(TRIES):
            first, second = (_transaction_of(file, page) for page in range(2))
            if abs(first - second) == 1 or first == second == 0:
                return None
            # A writer may have come in between the two reads.
            time.sleep(PAUSE_S)
    return f"their transactions are {first} and {second}, and not one after the other: the last one would be lost"


def _transaction_of(file: BinaryIO | FileIO, page: int) -> int:
    file.seek(page * resource.getpagesize() + _TRANSACTION_AT)
    return int.from_bytes(file.read(8) or b"", "little")


def _read_at(file: BinaryIO, place: int, size: int) -> bytes:
    file.seek(place)
    return file.read(size)


def _page(text: str) -> int | None:
    match = _PAGE.search(text)
    return int(match.group(1)) if match else None


def _classified(file: BinaryIO, text: str) -> StructureProblem:
    page = _page(text)
    if _FREE_LIST.search(text):
        return StructureProblem("free list", page, text)
    if page is None:
        return StructureProblem("unknown", None, text)
    if page < 2:
        return StructureProblem("meta", page, text)
    place = page * resource.getpagesize()
    # The number may itself be damage, beyond any file.
    head = b"" if place > file.seek(0, os.SEEK_END) else _read_at(file, place, _FLAGS.size)
    flags = _FLAGS.unpack(head)[1] if len(head) == _FLAGS.size else 0
    return StructureProblem(PAGE_CLASSES.get(flags & ~0x20, "unknown"), page, text)
