"""Arrays of equal content, held once for all processes of a server.

Every process builds its rows itself, so that none depends on another; what comes out is the same in all of them. Each array is
then looked up by a hash of its content in a directory in memory: the first process that has it writes it there, the others map
that file and drop their own copy. Edited rows are shared in the same way, and so are those of a new bundle.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import mmap
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import numpy.typing as npt
import structlog

IN_MEMORY = Path("/dev/shm")
PREFIX = "llmgr-ranking-"
LOCK_NAME = "lock"
ARRAYS_NAME = "arrays"
USERS_NAME = "users"
# Smaller ones are not worth a mapping of their own.
SMALLEST_BYTES = 1 << 14

Number = TypeVar("Number", bound=np.generic)
log = structlog.get_logger(service="ranking")


class SharedDirectory:
    """The directory of one server, made and removed by the process that starts the others; a context manager.

    Directories of servers that were killed are removed by the next one: their locks are free.
    """

    def __init__(self, parent: Path | None = None) -> None:
        if parent is None:
            parent = IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
        _remove_abandoned(parent)
        # Under another name until it is locked: an unlocked one looks abandoned to a server that starts just then.
        made = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=parent))
        self._lock: IO[bytes] = (made / LOCK_NAME).open("wb")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path = made.rename(parent / made.name.removeprefix("."))
        for name in (ARRAYS_NAME, USERS_NAME):
            (self.path / name).mkdir()

    def forget(self, pid: int) -> None:
        """Drop what only a process that has ended has used."""
        shutil.rmtree(self.path / USERS_NAME / str(pid), ignore_errors=True)
        _drop_unused((self.path / ARRAYS_NAME).iterdir())

    def close(self) -> None:
        """Remove it; processes that still map its files keep them until they end."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


class SharedArrays:
    """One process's view of a SharedDirectory.

    A file stays as long as some process uses it: each has a hard link to every file it maps, and whoever drops the last one
    removes the file.

    Args:
        directory: ``SharedDirectory.path``.
    """

    def __init__(self, directory: Path) -> None:
        self._arrays = directory / ARRAYS_NAME
        self._mine = directory / USERS_NAME / str(os.getpid())
        self._mine.mkdir(exist_ok=True)
        self._mapped: weakref.WeakValueDictionary[str, mmap.mmap] = weakref.WeakValueDictionary()
        self._complained = False

    def share(self, array: npt.NDArray[Number]) -> npt.NDArray[Number]:
        """A read-only array of the same content that all processes hold once; the array itself where that cannot be."""
        if array.nbytes < SMALLEST_BYTES or not array.flags.writeable:
            return array
        content = np.ascontiguousarray(array)
        digest = hashlib.blake2b(f"{array.dtype.str}{array.shape}".encode(), digest_size=16)
        digest.update(content.data.cast("B"))
        name = digest.hexdigest()
        mapped = self._mapped.get(name)
        if mapped is None:
            try:
                mapped = self._open(name, content)
            except OSError as error:
                # A small /dev/shm, say. Rankings do not depend on it.
                if not self._complained:
                    log.warning("rows_not_shared", directory=str(self._arrays), error=str(error))
                self._complained = True
                return array
            self._mapped[name] = mapped
        shared: npt.NDArray[Number] = np.frombuffer(mapped, dtype=array.dtype).reshape(array.shape)
        return shared

    def _open(self, name: str, content: npt.NDArray[Any]) -> mmap.mmap:
        common, mine = self._arrays / name, self._mine / name
        with suppress(FileExistsError):
            try:
                os.link(common, mine)
            except FileNotFoundError:
                self._write(name, content)
        with mine.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        weakref.finalize(mapped, _let_go, mine, common).atexit = False
        return mapped

    def _write(self, name: str, content: npt.NDArray[Any]) -> None:
        common, mine = self._arrays / name, self._mine / name
        partial = self._mine / f"{name}.partial"
        try:
            with partial.open("wb") as file:
                file.write(content.data.cast("B"))
            # Where another process was faster, its file is taken.
            with suppress(FileExistsError):
                os.link(partial, common)
                os.link(partial, mine)
                return
            os.link(common, mine)
        finally:
            partial.unlink(missing_ok=True)


def give_memory_back() -> None:
    """Return to the system what was freed; after arrays were dropped for shared ones, glibc would keep their pages."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def _let_go(mine: Path, common: Path) -> None:
    mine.unlink(missing_ok=True)
    _drop_unused([common])


def _drop_unused(files: Iterable[Path]) -> None:
    for path in files:
        # A process that links the file in between keeps what it has linked.
        with suppress(FileNotFoundError):
            if path.stat().st_nlink == 1:
                path.unlink()


def _remove_abandoned(parent: Path) -> None:
    for path in parent.glob(f"{PREFIX}*"):
        try:
            # Anybody may put something there: a pipe would be waited for.
            with open(os.open(path / LOCK_NAME, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
        except OSError:
            continue
