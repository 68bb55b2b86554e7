"""Putting a fetched directory in its place: whole or not at all, once."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmgr_core.errors import InputError

SOURCE_NAME = "source.json"


def is_placed(final: Path, source: Mapping[str, Any]) -> bool:
    """Whether ``final`` is the whole result of exactly this source: same origin, every file there with its size."""
    try:
        recorded = json.loads((final / SOURCE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(recorded, dict) or recorded.get("source") != dict(source):
        return False
    return bool(recorded.get("bytes") == _sizes(final))


def place_directory(final: Path, source: Mapping[str, Any], fill: Callable[[Path], None], *, force: bool = False) -> bool:
    """Make a directory under a temporary name and rename it when it is complete.

    Args:
        final: where it shall stand; what stands there from another source is replaced, after the new one is complete.
        source: JSON-able description of where the contents come from; written beside them as ``source.json``.
        fill: writes the contents into the empty directory it is given.
        force: make it again even if it is there.

    Returns:
        True if it was made, False if it was there already.

    Raises:
        InputError: the disk is full or cannot be written. Whatever ``fill`` raises passes through; nothing is left behind.
    """
    partial = final.with_name(f".{final.name}.partial")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with _lock(final.with_name(f".{final.name}.lock")):
            if not force and is_placed(final, source):
                return False
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            try:
                fill(partial)
                record = {"source": dict(source), "bytes": _sizes(partial)}
                (partial / SOURCE_NAME).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
                _swap(partial, final)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
    except OSError as error:
        raise InputError(
            f"{final} cannot be written: {error.strerror or error}",
            "free some space there, or set LLMGR_HOME to another directory",
        ) from error
    return True


def _sizes(directory: Path) -> dict[str, int]:
    return {
        str(path.relative_to(directory)): path.stat().st_size
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path != directory / SOURCE_NAME
    }


def _swap(partial: Path, final: Path) -> None:
    old = final.with_name(f".{final.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    partial.rename(final)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a file lock: of two processes that fetch the same thing one waits, then finds it there."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
