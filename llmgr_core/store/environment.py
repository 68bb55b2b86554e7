"""The LMDB environment under a store: opening it once a process, growing its map, and saying what goes wrong.

LMDB allows one opening of a file per process, and a map may only grow while no transaction of the process is open. Both rules
are kept here, so that readers and the writer of one process can come and go as they like.
"""

from __future__ import annotations

import errno
import itertools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb

from llmgr_core.store.errors import StoreDamagedError, StoreError, StoreFullError
from llmgr_core.store.place import DATA_NAME, opening
from llmgr_core.store.structure import structure_problems

DATABASES = ("vectors", "items", "changes", "meta")
FIRST_MAP_BYTES = 1 << 30
MAX_READERS = 512
# Larger files are checked by `llmgr store verify` alone: every process that opens one would spend seconds on it.
LARGEST_CHECKED_BYTES = 256 << 20
SHOWN_PROBLEMS = 3
# A look through all items of a large store takes seconds.
LONGEST_CLOSING_S = 60.0
# Two meta pages.
LEAST_BYTES = 8192

_open_environments: dict[tuple[int, int], Environment] = {}
_registry_lock = threading.Lock()


class Environment:
    """One opened LMDB environment, shared by everything in this process that uses the same file."""

    def __init__(self, directory: Path, writable: bool, map_bytes: int) -> None:
        self.directory = directory
        self.writable = writable
        self.users = 0
        self._map_bytes = map_bytes
        self._gate = threading.Condition()
        self._transactions = 0
        self._open()

    @contextmanager
    def read(self) -> Iterator[Any]:
        """A read transaction (buffers=True: values are memoryviews, valid inside the block only)."""
        try:
            with self._admitted():
                try:
                    transaction = self._environment.begin(buffers=True)
                except lmdb.MapResizedError:
                    transaction = None
                if transaction is not None:
                    with transaction:
                        yield transaction
                    return
            # Another process made the map larger; 0 takes over its size.
            self._resize(0)
            with self._admitted(), self._environment.begin(buffers=True) as transaction:
                yield transaction
        except (lmdb.CorruptedError, lmdb.PageNotFoundError) as error:
            raise StoreDamagedError(
                f"{self.directory / DATA_NAME} is damaged (data loss): {error}", "`llmgr store verify` says where"
            ) from None

    @contextmanager
    def write(self) -> Iterator[Any]:
        """A write transaction: committed and on the disk when the block ends, undone where it raises.

        Raises:
            StoreFullError: no space left on the disk.
            MapGrownError: the map was too small; it is larger now, so do the same again.
        """
        try:
            with self._admitted(), self._environment.begin(write=True) as transaction:
                yield transaction
        except lmdb.MapFullError:
            self._resize(2 * self._environment.info()["map_size"])
            raise MapGrownError from None
        except lmdb.MapResizedError:
            self._resize(0)
            raise MapGrownError from None
        except lmdb.PanicError:
            # A meta page could not be written; the file is sound, this opening of it is not.
            self._reopen()
            raise StoreFullError(
                f"{self.directory} could not be written", "free some space; the next write tries again"
            ) from None
        except (lmdb.Error, OSError) as error:
            if not _is_out_of_space(error):
                raise
            raise StoreFullError(
                f"no space left on the disk of {self.directory}", "free some space; the next write tries again"
            ) from None

    def database(self, name: str) -> Any:
        """Handle of a database of DATABASES."""
        return self._databases[name]

    def readers(self) -> list[tuple[int, int | None]]:
        """Processes with a place among the readers, each with the transaction it reads, or None where it reads none now."""
        rows = [line.split() for line in self._environment.readers().splitlines()[1:]]
        return [
            (int(pid), int(number) if number.isdigit() else None) for pid, _, number in (row for row in rows if len(row) == 3)
        ]

    def copy_compact(self, directory: Path) -> None:
        """Write this state, without free pages, as another environment."""
        self._environment.copy(str(directory), compact=True)

    def flush(self) -> None:
        """Have everything on the disk, also where it was not written by a transaction."""
        self._environment.sync(True)

    def require_sound(self) -> None:
        """Check how the pages hang together.

        Raises:
            StoreDamagedError: they do not; LMDB would answer wrongly, or end the process, on some later read.
        """
        path = self.directory / DATA_NAME
        # The read transaction keeps a writer in another process from using pages of this state again.
        with self.read():
            problems = structure_problems(path)
        if problems:
            shown = "; ".join(str(problem) for problem in problems[:SHOWN_PROBLEMS])
            raise StoreDamagedError(
                f"{path} is damaged (data loss): {shown}",
                "restore a copy; or let `llmgr store repair --salvage` make a store of the records that are whole",
            )

    def clear_dead_readers(self) -> int:
        """Free the slots of readers that died; they would keep old pages from being used again."""
        return int(self._environment.reader_check())

    def close(self) -> None:
        """Close it once nobody reads any more: LMDB crashes under a transaction of another thread.

        One that does not end in time leaves it open, until the process ends.
        """
        with self._gate:
            if self._gate.wait_for(lambda: self._transactions == 0, LONGEST_CLOSING_S):
                self._environment.close()

    def _open(self) -> None:
        path = self.directory / DATA_NAME
        if path.is_file() and path.stat().st_size < LEAST_BYTES:
            # LMDB would make a new, empty store of what is left of this one.
            raise StoreDamagedError(
                f"{path} is cut short (data loss): {path.stat().st_size} bytes are no store",
                "restore it; or remove it, if it never held anything",
            )
        try:
            self._environment = lmdb.open(
                str(self.directory),
                map_size=self._map_bytes,
                max_dbs=len(DATABASES),
                max_readers=MAX_READERS,
                readonly=not self.writable,
                create=self.writable,
                # Random reads of a file larger than memory suffer from readahead; loading everything profits from it.
                readahead=True,
            )
        except (lmdb.InvalidError, lmdb.CorruptedError):
            raise StoreDamagedError(
                f"{path} is not an LMDB file, or is damaged (data loss)", "restore it, or embed into a new directory"
            ) from None
        except lmdb.VersionMismatchError:
            raise StoreError(f"{path} was written by another major version of LMDB", "embed into a new directory") from None
        except lmdb.LockError:
            raise StoreError(
                f"{path} is open in another container, by a process whose number is {os.getpid()} too",
                "let containers that share a store share their process numbers (docs/more-than-one-machine.md, Containers)",
            ) from None
        except lmdb.Error as error:
            if _is_out_of_space(error):
                raise StoreFullError(f"no space left on the disk of {self.directory}", "free some space") from None
            raise StoreError(f"{path} cannot be opened: {error}", "check the path and its permissions") from None
        self._databases: dict[str, Any] = {}
        try:
            self._open_databases()
        except StoreError:
            self.close()
            raise
        except lmdb.Error as error:
            self.close()
            if _is_out_of_space(error):
                raise StoreFullError(f"no space left on the disk of {self.directory}", "free some space") from None
            raise StoreError(f"{path} cannot be used: {error}", "restore it, or embed into a new directory") from None

    def _open_databases(self) -> None:
        """Find the databases; make them all at once in a new file, and none in a file of something else."""
        with self._environment.begin() as transaction:
            keys = itertools.islice(transaction.cursor().iternext(values=False), len(DATABASES) + 1)
            names = {bytes(key).decode(errors="replace") for key in keys}
        if not names and not self.writable:
            raise StoreError(f"{self.directory} holds an empty file, no embedding store", "`llmgr embed` fills it")
        if names and names != set(DATABASES):
            raise StoreError(f"{self.directory / DATA_NAME} is an LMDB file of something else", "check the path")
        if names:
            self._databases = {name: self._environment.open_db(name.encode(), create=False) for name in DATABASES}
            return
        with self._environment.begin(write=True) as transaction:
            self._databases = {name: self._environment.open_db(name.encode(), transaction) for name in DATABASES}

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        with self._gate:
            self._transactions += 1
        try:
            yield
        finally:
            with self._gate:
                self._transactions -= 1
                if self._transactions == 0:
                    self._gate.notify_all()

    def _resize(self, map_bytes: int) -> None:
        with self._gate:
            while self._transactions:
                self._gate.wait()
            self._environment.set_mapsize(map_bytes)
            self._map_bytes = self._environment.info()["map_size"]

    def _reopen(self) -> None:
        with self._gate:
            while self._transactions:
                self._gate.wait()
            self._environment.close()
            with opening(self.directory):
                self._open()


class MapGrownError(Exception):
    """The map was too small for a write and has been doubled."""


def acquire(directory: Path, writable: bool, map_bytes: int = FIRST_MAP_BYTES, *, check_structure: bool = True) -> Environment:
    """The environment of a directory, opened now or shared with who opened it before in this process.

    Args:
        check_structure: look at every page first, unless the file is large (LARGEST_CHECKED_BYTES).

    Raises:
        StoreDamagedError: the pages of the file do not hang together.
        StoreError: there is none, it is no LMDB file, or this process holds it open for reading and now wants to write.
    """
    path = directory / DATA_NAME
    with _registry_lock:
        if writable:
            directory.mkdir(parents=True, exist_ok=True)
        elif not path.is_file():
            raise StoreError(f"no embedding store at {directory}", "`llmgr embed` makes one, so does the embedding server")
        environment = _open_environments.get(_identity(path)) if path.is_file() else None
        if environment is None:
            # While another process puts a compacted file in the place of this one, nobody opens either.
            with opening(directory):
                environment = Environment(directory, writable, map_bytes)
                identity = _identity(path)
            if check_structure and path.stat().st_size <= LARGEST_CHECKED_BYTES:
                try:
                    environment.require_sound()
                except BaseException:
                    environment.close()
                    raise
            _open_environments[identity] = environment
        elif writable and not environment.writable:
            raise StoreError(f"{directory} is open for reading in this process", "open the writer first, or close the readers")
        environment.users += 1
        return environment


def release(environment: Environment) -> None:
    """Give an acquired environment back; the last user closes it."""
    with _registry_lock:
        environment.users -= 1
        if environment.users == 0:
            for key in [key for key, value in _open_environments.items() if value is environment]:
                del _open_environments[key]
            environment.close()


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _is_out_of_space(error: Exception) -> bool:
    text = str(error)
    return any(os.strerror(number) in text for number in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT))
