"""The training log that stays in the artefact."""

from __future__ import annotations

import json
import os
from pathlib import Path

LOG_NAME = "log.jsonl"


class TrainingLog:
    """One JSON object a line: losses and validation metrics, nothing that depends on the clock.

    Without times in it, the log of a run that was cut off and resumed equals that of a run that was not.

    Args:
        directory: where ``log.jsonl`` stands or will stand.
        length: bytes to keep of what an earlier run wrote; what follows belongs to steps that will be repeated.
    """

    def __init__(self, directory: Path, length: int = 0) -> None:
        self._path = directory / LOG_NAME
        self._stream = self._path.open("r+b" if length and self._path.exists() else "w+b")
        self._stream.truncate(length)
        self._stream.seek(0, os.SEEK_END)

    def write(self, **fields: float | int | str) -> None:
        self._stream.write(json.dumps(fields).encode("utf-8") + b"\n")

    def flush(self) -> int:
        """Bring everything to the disk; returns the length in bytes."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        return self._stream.tell()

    def close(self) -> None:
        self._stream.close()
