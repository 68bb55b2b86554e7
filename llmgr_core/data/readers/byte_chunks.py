"""Reading a text file in chunks of bytes that end at the end of a line."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from llmgr_core.errors import InputError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
LONGEST_LINE = 64 * 2**20


@dataclass(frozen=True)
class ByteChunk:
    """Whole lines of a file.

    Attributes:
        data: the bytes; a chunk's last line may lack its line end only at the end of the file.
        first_line: number of its first line, from 1.
    """

    data: bytes
    first_line: int

    @property
    def num_lines(self) -> int:
        """Lines in the chunk, empty ones included."""
        return self.data.count(b"\n") + (not self.data.endswith(b"\n"))

    def split(self, parts: int, cut: Callable[[bytes], int]) -> list[ByteChunk]:
        """Up to ``parts`` chunks of about equal size."""
        step = max(len(self.data) // parts, 1)
        pieces, rest, line = [], self.data, self.first_line
        while rest:
            end = step
            place = cut(rest[:end])
            while place == 0 and end < len(rest):
                end *= 2
                place = cut(rest[:end])
            if end >= len(rest) or place == 0:
                place = len(rest)
            pieces.append(ByteChunk(rest[:place], line))
            line += pieces[-1].data.count(b"\n")
            rest = rest[place:]
        return pieces


class ChunkReader:
    """Iterates over the chunks of one file, plain or gzipped.

    Args:
        path: the file; ``.gz`` at the end of its name means gzip.
        chunk_bytes: about how many bytes a chunk has.
        cut: where a piece of bytes may be cut: the number of bytes up to the end of the last whole record, 0 if there is none.

    Attributes:
        size: bytes of the file as it lies on disk.
        position: bytes of it that have been read.
    """

    def __init__(self, path: Path, chunk_bytes: int, cut: Callable[[bytes], int]) -> None:
        self.path, self._chunk_bytes, self._cut = path, chunk_bytes, cut
        self.size = path.stat().st_size
        self.position = 0

    def __iter__(self) -> Iterator[ByteChunk]:
        """Read from the beginning.

        A record longer than LONGEST_LINE is given out in pieces, which no format accepts, so that it is counted as broken
        instead of filling the memory.

        Raises:
            InputError: a damaged gzip file, or one that cannot be read.
        """
        line, carry, wanted = 1, b"", self._chunk_bytes
        self.position = 0
        try:
            with self.path.open("rb") as raw:
                stream = cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if self.path.suffix == ".gz" else raw
                first = True
                while block := stream.read(wanted):
                    self.position = raw.tell()
                    if first:
                        block, first = block.removeprefix(BYTE_ORDER_MARK), False
                    data = carry + block
                    end = self._cut(data)
                    if end == 0 and len(data) < LONGEST_LINE:
                        # no record ends here; reading ever larger blocks keeps the copying linear
                        carry, wanted = data, max(self._chunk_bytes, len(data))
                        continue
                    chunk = ByteChunk(data[: end or data.rfind(b"\n") + 1 or len(data)], line)
                    line += chunk.data.count(b"\n")
                    carry, wanted = data[len(chunk.data) :], self._chunk_bytes
                    yield chunk
                if carry:
                    yield ByteChunk(carry, line)
                self.position = self.size
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(
                f"{self.path} is damaged at or after line {line}: {error}", "fetch or write the file again"
            ) from None
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be read: {error.strerror or error}", "check the path and its permissions"
            ) from None


def end_of_last_line(data: bytes) -> int:
    """Cut for formats whose records are lines."""
    return data.rfind(b"\n") + 1
