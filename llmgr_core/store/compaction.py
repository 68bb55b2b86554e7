"""Writing a store anew without its free pages, and putting the new file in the place of the old one."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import lmdb

from llmgr_core.store import environment as environments
from llmgr_core.store import metadata
from llmgr_core.store.environment import DATABASES, Environment
from llmgr_core.store.errors import StoreDamagedError, StoreFullError
from llmgr_core.store.place import DATA_NAME, put_in_place
from llmgr_core.store.writer_lock import WriterLock

COPY_NAME = "compacting"


@dataclass(frozen=True)
class CompactionReport:
    """Size of the file, bytes, before and after."""

    before: int
    after: int


def compact_store(path: Path) -> CompactionReport:
    """Make a store's file as small as its contents.

    Readers go on with the old file until they look for a new one (a ranking server does so by itself, between two requests);
    whoever opens the store afterwards gets the new one. Killed at any moment, the store is the old one or the new one.

    Raises:
        StoreError: no store there, or damaged; nothing was done.
        StoreLockedError: another process writes to the store.
        StoreFullError: no space left for the copy; nothing was done.
    """
    environment = environments.acquire(path, writable=False)
    copy = path / COPY_NAME
    try:
        lock = WriterLock(path)
        try:
            # What a compaction that was killed has left.
            shutil.rmtree(copy, ignore_errors=True)
            before = (path / DATA_NAME).stat().st_size
            after = _write_copy(environment, copy)
            put_in_place(copy / DATA_NAME, path)
        finally:
            shutil.rmtree(copy, ignore_errors=True)
            lock.release()
    finally:
        environments.release(environment)
    return CompactionReport(before, after)


def _write_copy(environment: Environment, copy: Path) -> int:
    """Size of the copy, which holds the same rows and is sound."""
    copy.mkdir()
    try:
        environment.copy_compact(copy)
    except (lmdb.Error, OSError) as error:
        raise StoreFullError(f"no copy of the store could be written to {copy}: {error}", "free some space") from None
    # Never in the registry, since another process may not see it yet.
    written = Environment(
        copy, writable=True, map_bytes=max(environments.FIRST_MAP_BYTES, 2 * (copy / DATA_NAME).stat().st_size)
    )
    try:
        # Both meta pages tell of the whole copy then: LMDB's copy leaves one of them empty.
        for _ in range(2):
            with written.write() as transaction:
                meta = written.database("meta")
                metadata.write_live(transaction, meta, metadata.read_live(transaction, meta))
        written.require_sound()
        if _rows(environment) != _rows(written):
            raise StoreDamagedError(f"the compacted copy of {environment.directory} lacks rows; it was thrown away")
        written.flush()
    finally:
        written.close()
    return (copy / DATA_NAME).stat().st_size


def _rows(environment: Environment) -> dict[str, int]:
    with environment.read() as transaction:
        return {name: transaction.stat(environment.database(name))["entries"] for name in DATABASES}
