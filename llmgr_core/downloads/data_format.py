"""The project's own data format: ``items.jsonl.gz`` with the catalogue, ``sessions.jsonl.gz`` with the click sessions.

An item is ``{"item_id", "title", "description", "brand", "category"}``, category a list of paths from the root down. A session
is ``{"session_id", "items"}`` in click order, with ``"timestamps"`` (seconds, one for each click) where they are known. Instead
of ``sessions.jsonl.gz`` there may be ``train_sessions.jsonl.gz`` with ``test.jsonl.gz`` (``{"items": prefix, "target"}``).
"""

from __future__ import annotations

import gzip
import json
import shutil
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from llmgr_core.errors import InputError

ITEMS_NAME = "items.jsonl.gz"
SESSIONS_NAME = "sessions.jsonl.gz"
TRAIN_NAME = "train_sessions.jsonl.gz"
TEST_NAME = "test.jsonl.gz"
KNOWN_NAMES = (ITEMS_NAME, SESSIONS_NAME, TRAIN_NAME, TEST_NAME)


def write_lines(path: Path, records: Iterable[dict[str, Any]]) -> int:
    """Write JSON lines, gzipped without a time stamp so that equal contents give equal bytes; returns how many."""
    count = 0
    with path.open("wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=6) as stream:
        for record in records:
            stream.write(json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode("utf-8") + b"\n")
            count += 1
    return count


def holds_data(directory: Path) -> bool:
    """Whether the directory has session files of this format."""
    return (directory / SESSIONS_NAME).is_file() or ((directory / TRAIN_NAME).is_file() and (directory / TEST_NAME).is_file())


def copy_data(source: Path, target: Path) -> dict[str, int]:
    """Validate every line of a data directory and copy its files.

    Returns:
        Lines of each file copied.

    Raises:
        InputError: no session files, or a line that is not of the format; the message names file and line.
    """
    if not holds_data(source):
        raise InputError(
            f"{source} holds no {SESSIONS_NAME}, nor {TRAIN_NAME} with {TEST_NAME}",
            "see docs/data.md for the format; `llmgr prepare` reads other formats where they stand",
        )
    counts = {}
    for name in KNOWN_NAMES:
        if (source / name).is_file():
            counts[name] = sum(1 for _ in _checked_lines(source / name))
            shutil.copyfile(source / name, target / name)
    if (source / "SOURCE.md").is_file():
        shutil.copyfile(source / "SOURCE.md", target / "SOURCE.md")
    return counts


def _checked_lines(path: Path) -> Iterator[dict[str, Any]]:
    check = {ITEMS_NAME: _item_fault, TEST_NAME: _example_fault}.get(path.name, _session_fault)
    number = 0
    try:
        with gzip.open(path, "rb") as stream:
            for number, line in enumerate(stream, start=1):
                record = json.loads(line)
                fault = check(record) if isinstance(record, dict) else "not a JSON object"
                if fault:
                    raise InputError(f"{path}:{number}: {fault}")
                yield record
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is damaged after line {number}: {error}", "fetch the file again") from None
    except ValueError as error:
        raise InputError(f"{path}:{number}: not valid JSON: {error}") from None
    if number == 0:
        raise InputError(f"{path} is empty")


def _is_id(value: Any) -> bool:
    return (isinstance(value, str) and value != "") or (isinstance(value, int) and not isinstance(value, bool))


def _item_fault(record: dict[str, Any]) -> str | None:
    if not _is_id(record.get("item_id")):
        return "no item_id"
    for key in ("title", "description", "brand"):
        if not isinstance(record.get(key), str | None):
            return f"{key} is neither text nor null"
    return None


def _session_fault(record: dict[str, Any]) -> str | None:
    items = record.get("items")
    if not isinstance(items, list) or not all(_is_id(item) for item in items):
        return "items is not a list of item ids"
    times = record.get("timestamps")
    if times is not None and (not isinstance(times, list) or len(times) != len(items)):
        return "timestamps has another length than items"
    return None


def _example_fault(record: dict[str, Any]) -> str | None:
    return _session_fault(record) or (None if _is_id(record.get("target")) else "no target")
