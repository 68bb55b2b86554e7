"""Which files a data set consists of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llmgr_core.artefacts.manifest import hash_file
from llmgr_core.errors import InputError

FORMATS = ("jsonl", "csv", "tsv", "parquet", "inter", "item")
ITEM_NAMES = ("items", "item")
SESSION_NAMES = ("train_sessions", "sessions", "clicks", "train_clicks")
TEST_NAMES = ("test",)


@dataclass(frozen=True)
class Sources:
    """Input files of one data set.

    Attributes:
        sessions: sessions or clicks.
        items: the catalogue, None where items have no texts.
        test: a test file (prefix and target), None where the split is ours to make.
    """

    sessions: Path
    items: Path | None = None
    test: Path | None = None

    @property
    def files(self) -> dict[str, Path]:
        """The files that are there, by role."""
        every = {"items": self.items, "sessions": self.sessions, "test": self.test}
        return {role: path for role, path in every.items() if path is not None}

    def hashes(self) -> dict[str, list[str]]:
        """Format and SHA-256 of each file, by role: what stands in the identity of the prepared data."""
        return {role: [file_format(path), hash_file(path)] for role, path in self.files.items()}

    @classmethod
    def of_files(cls, items: Path | None, sessions: Path, test: Path | None) -> Sources:
        """Name the files one by one.

        Raises:
            InputError: a file is missing or of a format that is not read.
        """
        sources = cls(sessions, items, test)
        for role, path in sources.files.items():
            if not path.is_file():
                raise InputError(f"no {role} file {path}", "check the path")
            file_format(path)
        return sources

    @classmethod
    def of_directory(cls, directory: Path) -> Sources:
        """Find the files by their names: items.*, sessions.* (or clicks.*, train_sessions.*, NAME.inter), test.*.

        Raises:
            InputError: no session file, or two that could be meant.
        """
        if not directory.is_dir():
            raise InputError(f"no directory {directory}", "check the path, or name the files with --items and --sessions")
        items = _find(directory, ITEM_NAMES, "item")
        sessions = _find(directory, SESSION_NAMES, "inter")
        if sessions is None:
            raise InputError(
                f"{directory} holds no sessions.* file",
                f"its name is {' or '.join(SESSION_NAMES)}, its ending {' or '.join(FORMATS)}; or name it with --sessions",
            )
        return cls(sessions, items, _find(directory, TEST_NAMES, None))


def file_format(path: Path) -> str:
    """One of FORMATS, from the ending of the name; ``.gz`` after it is allowed.

    Raises:
        InputError: another ending.
    """
    suffixes = path.suffixes
    if suffixes and suffixes[-1] == ".gz":
        suffixes = suffixes[:-1]
    ending = suffixes[-1][1:].lower() if suffixes else ""
    ending = {"json": "jsonl", "ndjson": "jsonl", "pq": "parquet"}.get(ending, ending)
    if ending not in FORMATS:
        raise InputError(
            f"{path} is of no format this program reads", f"its name ends in {', '.join(FORMATS)}, or .gz after one"
        )
    return ending


def _find(directory: Path, stems: tuple[str, ...], recbole: str | None) -> Path | None:
    found = []
    for path in sorted(directory.iterdir()):
        name = path.name.removesuffix(".gz")
        stem, _, ending = name.rpartition(".")
        by_name = stem in stems and ending in (*FORMATS, "json", "ndjson", "pq")
        if path.is_file() and (by_name or (recbole is not None and ending == recbole)):
            found.append(path)
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise InputError(f"{directory}: which of {names} is meant?", "name the files with --items, --sessions and --test")
    return found[0] if found else None
