"""The place of a store: opening what stands there, and putting another file there in one step."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAME = "opening.lock"
DATA_NAME = "data.mdb"
LMDB_LOCK_NAME = "lock.mdb"


@contextmanager
def opening(directory: Path) -> Iterator[None]:
    """Held by who opens a store: data.mdb and lock.mdb are of one and the same file meanwhile."""
    with _held(directory, fcntl.LOCK_SH):
        yield


def put_in_place(new: Path, directory: Path) -> None:
    """Make another LMDB file the store of a directory, whatever readers hold open: they go on with the old one, which is gone
    once they close it.

    The caller holds the writer's lock of the directory. LMDB's lock file goes with the file it belongs to: its reader slots and
    transaction numbers mean nothing to another one.

    Args:
        new: data.mdb on the same file system, flushed to the disk.
    """
    with _held(directory, fcntl.LOCK_EX):
        new.replace(directory / DATA_NAME)
        (directory / LMDB_LOCK_NAME).unlink(missing_ok=True)
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _held(directory: Path, how: int) -> Iterator[None]:
    try:
        descriptor = os.open(directory / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError:
        # A directory nobody can write to has no compaction either; a full disk must not keep readers out.
        yield
        return
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)
