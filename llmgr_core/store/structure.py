"""Whether the pages of an LMDB file hang together: checked without LMDB, which trusts them and may crash on bad ones."""

from __future__ import annotations

import os
import re
import resource
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

PAGE_CLASSES = {0x01: "branch", 0x02: "leaf", 0x04: "overflow", 0x08: "meta"}
# LMDB 0.9: page number u64, pad u16, flags u16.
_FLAGS = struct.Struct("<8xHH")
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
        return [_classified(file, text) for text in found]


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
