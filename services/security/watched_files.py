"""Noticing that files were replaced, and that other users may read them."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path

from llmgr_core.errors import InputError

# A group may read, since orchestrators hand secrets to a group; nobody but the owner may write.
FORBIDDEN_MODE = stat.S_IRWXO | stat.S_IWGRP

Signature = tuple[tuple[int, int, int, int, int], ...]


def signature_of(paths: Sequence[Path]) -> Signature:
    """What changes whenever one of the files is written or replaced; links are followed.

    Raises:
        OSError: a file is missing.
    """
    states = [path.stat() for path in paths]
    return tuple((one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns, one.st_mode) for one in states)


def require_private(path: Path) -> None:
    """Look at who may read a secret.

    Raises:
        InputError: missing, not a file, or open to other users.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        raise InputError(f"{path} is not a file")
    if mode & FORBIDDEN_MODE:
        raise InputError(
            f"{path} holds a secret, but its mode {stat.S_IMODE(mode):04o} lets other users read or change it",
            f"chmod 600 {path}",
        )


def read_secret(path: Path) -> bytes:
    """Contents of a file that only its owner (and perhaps a group) can read.

    Raises:
        InputError: see require_private.
    """
    require_private(path)
    return read_file(path)


def read_file(path: Path) -> bytes:
    """Contents of a file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
