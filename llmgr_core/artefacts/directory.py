"""Making and opening artefact directories.

A step writes into ``NAME.partial`` and renames it when everything is in place, so that a directory under its final name is
always whole. The partial directory keeps its name between runs: a step that was cut off finds its own checkpoints there. Its
manifest comes last and in one piece: a partial directory that has one lacks its new name only, and the next run gives it that.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llmgr_core import __version__
from llmgr_core.artefacts.manifest import (
    FORMAT_VERSION,
    MANIFEST_NAME,
    Manifest,
    canonical_json,
    hash_file,
    hash_files,
    hash_value,
    listed_files,
)
from llmgr_core.errors import ArtefactError

IDENTITY_NAME = ".identity"
CHECKPOINTS_NAME = "checkpoints"
OLD_SUFFIX = ".old"
PARTIAL_SUFFIX = ".partial"
# What safetensors leaves behind where it is killed while it writes a file.
TORN_FILES = ".tmp*"


@dataclass(frozen=True)
class Artefact:
    """A finished directory and its manifest."""

    path: Path
    manifest: Manifest

    @property
    def digest(self) -> str:
        return self.manifest.digest

    def whole(self) -> bool:
        """Whether every file that the manifest lists is there; ``verify`` reads them too."""
        return all((self.path / name).is_file() for name in self.manifest.files)

    def file(self, name: str) -> Path:
        """Path of a file the manifest lists.

        Raises:
            ArtefactError: the manifest does not list it, or it is gone.
        """
        path = self.path / name
        if name not in self.manifest.files or not path.is_file():
            raise ArtefactError(f"{self.path} holds no {name}", "make the directory again")
        return path

    def lineage(self) -> dict[str, str]:
        """Digests of this artefact and of everything it was made from, by kind."""
        return {**self.manifest.inputs, self.manifest.kind: self.digest}

    def require_same_lineage(self, other: Artefact) -> None:
        """Refuse two artefacts that were made from different ancestors.

        Raises:
            ArtefactError: a kind that both descend from has two digests.
        """
        mine, theirs = self.lineage(), other.lineage()
        for kind in sorted(mine.keys() & theirs.keys()):
            if mine[kind] != theirs[kind]:
                raise ArtefactError(
                    f"{self.path} and {other.path} do not belong together: "
                    f"one stands on {kind} {mine[kind][:12]}, the other on {theirs[kind][:12]}",
                    "run the steps after that one again, in the same run directory",
                )

    def verify(self) -> None:
        """Compare every file with its hash.

        Raises:
            ArtefactError: a file is missing, was changed or was added; the message names it.
        """
        for name, expected in self.manifest.files.items():
            path = self.path / name
            if not path.is_file():
                raise ArtefactError(f"{path} is missing", "restore the directory or make it again")
            if hash_file(path) != expected:
                raise ArtefactError(f"{path} was changed after it was written", "restore the directory or make it again")
        added = listed_files(self.path).keys() - self.manifest.files.keys()
        if added:
            raise ArtefactError(f"{self.path / min(added)} is not listed in the manifest", "remove it")
        expected = _digest(self.manifest.identity, self.manifest.files)
        if self.manifest.digest != expected:
            raise ArtefactError(
                f"{self.path / MANIFEST_NAME} does not match the files it lists", "restore the directory or make it again"
            )


@dataclass
class Draft:
    """An artefact that is being written.

    Attributes:
        path: the partial directory; write the files here.
        resumed: True where an earlier run of the very same step was cut off and left its files.
        details, metrics: copied into the manifest at the end.
    """

    path: Path
    resumed: bool
    details: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def checkpoints(self) -> Path:
        """Directory for checkpoints; it is dropped when the artefact is finished."""
        path = self.path / CHECKPOINTS_NAME
        path.mkdir(exist_ok=True)
        return path


def open_artefact(path: Path, kind: str, *, verify: bool = False) -> Artefact:
    """Open a finished artefact.

    Raises:
        ArtefactError: missing, of another kind or version, or (with ``verify``) changed since it was written.
    """
    _restore_old(path)
    if not path.is_dir():
        raise ArtefactError(f"no {kind} at {path}", f"run the step that makes the {kind} first")
    artefact = Artefact(path, Manifest.read(path))
    if artefact.manifest.kind != kind:
        raise ArtefactError(f"{path} holds a {artefact.manifest.kind}, not a {kind}", "check the path")
    if verify:
        artefact.verify()
    return artefact


def step_identity(kind: str, inputs: Mapping[str, str], settings: Mapping[str, Any]) -> str:
    """Hash of what determines a step's result."""
    return hash_value({"kind": kind, "format": FORMAT_VERSION, "inputs": dict(inputs), "settings": dict(settings)})


def finished_artefact(path: Path, kind: str, inputs: list[Artefact], settings: Mapping[str, Any]) -> Artefact | None:
    """The artefact at ``path`` if it is the finished result of exactly this step with every file in place, else None.

    A manifest of another format version, or a damaged one, is None as well: doing the step again is what helps.

    Raises:
        ArtefactError: an artefact of another kind stands there, or the inputs contradict each other.
    """
    wanted = step_identity(kind, lineage_of(inputs), _plain(settings))
    _restore_old(path)
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    if _identity_of(partial) == wanted:
        _give_final_name(partial, path, wanted)
    try:
        manifest = Manifest.read(path)
    except ArtefactError:
        return None
    artefact = open_artefact(path, kind)
    return artefact if artefact.whole() and manifest.identity == wanted else None


@contextmanager
def draft_artefact(path: Path, kind: str, inputs: list[Artefact], settings: Mapping[str, Any]) -> Iterator[Draft]:
    """Write an artefact; it appears under ``path`` only when the block ends without an error.

    An earlier, unfinished attempt with the same inputs and settings is handed back with ``draft.resumed`` set; one with
    others is removed. A finished artefact already at ``path`` is replaced at the end, not before. Checkpoints live until that
    moment: hashing and flushing large files takes time, and being cut off then must not cost them.

    Args:
        path: final directory.
        kind: see Manifest.kind.
        inputs: artefacts this one is made from; they must not contradict each other.
        settings: JSON-able settings that shape the result.
    """
    lineage = lineage_of(inputs)
    plain = _plain(settings)
    identity = step_identity(kind, lineage, plain)
    _restore_old(path)
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    marker = partial / IDENTITY_NAME
    resumed = marker.is_file() and marker.read_text(encoding="utf-8") == identity and not (partial / MANIFEST_NAME).exists()
    if resumed:
        for torn in partial.rglob(TORN_FILES):
            torn.unlink()
    else:
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        marker.write_text(identity, encoding="utf-8")
    draft = Draft(partial, resumed)
    yield draft
    files = hash_files(partial, without=(IDENTITY_NAME, CHECKPOINTS_NAME))
    manifest = Manifest(
        kind=kind,
        identity=identity,
        digest=_digest(identity, files),
        inputs=lineage,
        files=files,
        settings=plain,
        details=draft.details,
        metrics=draft.metrics,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=[Path(sys.argv[0]).name, *sys.argv[1:]],
        code_version=__version__,
    )
    text = json.dumps(manifest.model_dump(), indent=2, ensure_ascii=False) + "\n"
    written = draft.checkpoints / MANIFEST_NAME
    written.write_text(text, encoding="utf-8")
    _flush(partial)
    written.replace(partial / MANIFEST_NAME)
    _give_final_name(partial, path, identity)


def lineage_of(inputs: Sequence[Artefact]) -> dict[str, str]:
    """What a manifest names as inputs: digests of these artefacts and of all they were made from, by kind.

    Raises:
        ArtefactError: they contradict each other.
    """
    for number, one in enumerate(inputs):
        for other in inputs[number + 1 :]:
            one.require_same_lineage(other)
    lineage: dict[str, str] = {}
    for artefact in inputs:
        lineage.update(artefact.lineage())
    return lineage


def _digest(identity: str, files: Mapping[str, str]) -> str:
    return hash_value({"identity": identity, "files": dict(files)})


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(canonical_json(dict(settings)))
    return value


def _flush(directory: Path) -> None:
    for path in [*directory.rglob("*"), directory]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _identity_of(directory: Path) -> str | None:
    try:
        return Manifest.read(directory).identity
    except ArtefactError:
        return None


def _give_final_name(partial: Path, final: Path, identity: str) -> None:
    """The end of a step; parts of it may have been done by a process that was killed, or by one that looks for the result."""
    shutil.rmtree(partial / CHECKPOINTS_NAME, ignore_errors=True)
    (partial / IDENTITY_NAME).unlink(missing_ok=True)
    try:
        _replace(partial, final)
    except FileNotFoundError:
        _restore_old(final)
        if _identity_of(final) != identity:
            raise


def _replace(partial: Path, final: Path) -> None:
    if final.exists():
        old = final.with_name(final.name + OLD_SUFFIX)
        shutil.rmtree(old, ignore_errors=True)
        final.rename(old)
        partial.rename(final)
        shutil.rmtree(old, ignore_errors=True)
    else:
        partial.rename(final)


def _restore_old(final: Path) -> None:
    """Put the old artefact back where a process was killed between the two renames of ``_replace``."""
    old = final.with_name(final.name + OLD_SUFFIX)
    if old.is_dir() and not final.exists():
        old.rename(final)
