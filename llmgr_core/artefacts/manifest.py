"""The manifest of an artefact: what it is, what it was made from, and the hash of every file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from llmgr_core.errors import ArtefactError

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 1


class Manifest(BaseModel):
    """Contents of ``manifest.json``.

    Attributes:
        kind: what the directory holds ("dataset", "backbone", "tuned", "ranker", "bundle", ...).
        format_version: layout of the directory; another number is refused.
        identity: hash of kind, inputs and settings; equal identities mean "the same step, asked again".
        digest: hash of the contents (file names and their SHA-256) and of the identity.
        inputs: digest of every artefact this one was made from, those of its inputs included, by kind.
        files: SHA-256 of every file, by path relative to the directory.
        settings: the settings that shaped it.
        details: facts a reader wants beside them (dimensions, model id, counts, ...).
        metrics: figures measured while it was made.
        created: UTC time, ISO 8601.
        command: the command line that made it.
        code_version: version of this project.
    """

    model_config = ConfigDict(extra="forbid")

    kind: str
    format_version: int = FORMAT_VERSION
    identity: str
    digest: str
    inputs: dict[str, str] = {}
    files: dict[str, str] = {}
    settings: dict[str, Any] = {}
    details: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    created: str
    command: list[str]
    code_version: str

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """Parse ``directory/manifest.json``.

        Raises:
            ArtefactError: no manifest, one that is not valid, or one of another format version.
        """
        path = directory / MANIFEST_NAME
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ArtefactError(
                f"{directory} has no {MANIFEST_NAME}", "point at a directory that an llmgr step has finished writing"
            ) from None
        except (OSError, ValueError) as error:
            raise ArtefactError(f"{path} cannot be read: {error}", "restore the directory or make it again") from None
        version = raw.get("format_version") if isinstance(raw, dict) else None
        if version != FORMAT_VERSION:
            raise ArtefactError(
                f"{path} has format version {version!r}; this program reads version {FORMAT_VERSION}",
                "make it again with this version of llmgr",
            )
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            raise ArtefactError(f"{path} is not a valid manifest: {error}", "make the directory again") from None


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def hash_value(value: Any) -> str:
    """SHA-256 (hex) of a JSON-able value."""
    return hashlib.sha256(canonical_json(value).encode("utf-8")).hexdigest()


def hash_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def listed_files(directory: Path, without: tuple[str, ...] = ()) -> dict[str, Path]:
    """Every file below a directory but the manifest itself and the entries named, by relative path."""
    return {
        str(path.relative_to(directory)): path
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != MANIFEST_NAME and path.relative_to(directory).parts[0] not in without
    }


def hash_files(directory: Path, without: tuple[str, ...] = ()) -> dict[str, str]:
    """SHA-256 of those files, by relative path."""
    return {name: hash_file(path) for name, path in listed_files(directory, without).items()}
