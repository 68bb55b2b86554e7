"""One writer at a time: a lock file that names the process holding it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from llmgr_core.store.errors import StoreError, StoreLockedError

NAME = "writer.lock"


class WriterLock:
    """An exclusive lock on a store directory; the kernel drops it when the process ends, however it ends.

    Args:
        directory: the store.

    Raises:
        StoreLockedError: another process (or this one) holds it; the message names it.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / NAME
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(f"{self._path} cannot be written: {error.strerror}", "check the directory's permissions") from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._descriptor)
            holder = lock_holder(directory) or {}
            address = holder.get("address")
            who = f"process {holder.get('pid', '?')} on {holder.get('host', '?')}"
            server = f", an embedding server at {address}" if address else ""
            raise StoreLockedError(
                f"{directory} is being written by {who}{server}",
                f"insert through that server (--server {address})" if address else "wait for it to finish, or stop it",
                address,
            ) from None
        self._write(None)

    def announce(self, address: str) -> None:
        """Name the embedding server (host:port) that others can insert through while this process holds the lock."""
        self._write(address)

    def release(self) -> None:
        """Let the next writer in."""
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, address: str | None) -> None:
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "address": address, "since": round(time.time(), 3)}
        line = (json.dumps(holder) + "\n").encode("utf-8")
        try:
            os.pwrite(self._descriptor, line, 0)
            os.ftruncate(self._descriptor, len(line))
        except OSError:
            # A full disk: the lock itself holds, only its holder stays unnamed.
            return


def lock_holder(directory: Path) -> dict[str, Any] | None:
    """Who last wrote its name into the lock file: pid, host, address (or None), since; None where nobody did."""
    try:
        holder = json.loads((directory / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return holder if isinstance(holder, dict) else None
