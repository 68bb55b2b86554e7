"""Opening a bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from llmgr_core.artefacts import Artefact, Manifest, open_artefact
from llmgr_core.bundle.allowed_files import refuse_other_files
from llmgr_core.errors import ArtefactError
from llmgr_core.ranker.parts import RankerParts
from llmgr_core.ranker.stored import RankerDescription, StoredRanker

ITEM_IDS_NAME = "item_ids.json"
CLEANER_NAME = "text_cleaner.json"
ENGINE_NAME = "engine.json"
ADAPTER_NAME = "adapter"
BRIDGE_NAME = "bridge.safetensors"


class EngineReference(BaseModel):
    """Contents of ``engine.json``: which language model makes the text vectors of this bundle.

    The model itself stays where it is. ``SemanticEngine.from_directory`` reads the same file, beside the same adapter/.

    Attributes:
        settings: [engine] settings: model name, pooling, number format, token limit.
        base_hash: SHA-256 of the base model's files.
        adapter_hash: SHA-256 of the adapter's weights, "" without one.
        fingerprint: encoder fingerprint; vectors under another one do not fit this bundle.
        prompt_version: version of the item text prompt.
        hidden_size: D, numbers in a text vector.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    settings: dict[str, Any]
    base_hash: str
    adapter_hash: str
    fingerprint: str
    prompt_version: str
    hidden_size: int


@dataclass(frozen=True)
class Bundle:
    """A bundle whose hashes were compared before anything in it was read.

    Attributes:
        artefact: its directory and manifest.
        ranker: the trained ranker.
        item_ids: identifiers of the V items, in index order.
        cleaner_state: state of the TextCleaner that made the texts; empty for an ID-only ranker.
        engine: which language model its text vectors come from; None for an ID-only ranker.
    """

    artefact: Artefact
    ranker: StoredRanker
    item_ids: list[str]
    cleaner_state: Mapping[str, Any]
    engine: EngineReference | None

    @classmethod
    def open(cls, path: Path, *, verify: bool = True) -> Bundle:
        """Open a bundle.

        Args:
            path: its directory.
            verify: compare every file with its hash first. Leave it on for a bundle that came from elsewhere.

        Raises:
            ArtefactError: missing, of another kind or version, incomplete, changed since it was written, or with a file in
                it that a bundle does not hold (a pickle, a script).
        """
        artefact = open_artefact(path, "bundle")
        refuse_other_files(path)
        if verify:
            artefact.verify()
        item_ids = _read_json(artefact, ITEM_IDS_NAME, list)
        if not all(isinstance(item_id, str) for item_id in item_ids) or len(set(item_ids)) != len(item_ids):
            raise ArtefactError(f"{path / ITEM_IDS_NAME} is not a list of distinct texts", "export the bundle again")
        ranker = StoredRanker.read(path)
        if ranker.description.num_items != len(item_ids):
            raise ArtefactError(
                f"{path} ranks {ranker.description.num_items} items but names {len(item_ids)}", "export the bundle again"
            )
        with_text = bool(ranker.description.text_dimension)
        state = _read_json(artefact, CLEANER_NAME, dict) if with_text else {}
        return cls(artefact, ranker, item_ids, state, _read_engine(artefact) if with_text else None)

    @property
    def path(self) -> Path:
        return self.artefact.path

    @property
    def manifest(self) -> Manifest:
        return self.artefact.manifest

    @property
    def version(self) -> str:
        """Model version: the digest of the contents, 64 hex digits."""
        return self.artefact.digest

    @property
    def description(self) -> RankerDescription:
        return self.ranker.description

    @property
    def fingerprint(self) -> str | None:
        """Encoder fingerprint of the text vectors it needs; None for an ID-only ranker."""
        return self.engine.fingerprint if self.engine else None

    @property
    def include_seen(self) -> bool:
        """Whether clicked items may be ranked when a request does not say."""
        return self.description.scoring.include_seen

    @property
    def adapter(self) -> Path | None:
        """Directory of the PEFT adapter; None where the vectors come from the untuned model."""
        path = self.path / ADAPTER_NAME
        return path if path.is_dir() else None

    @property
    def bridge(self) -> Path | None:
        """File with W_p, readout and head of the tuned model; None without one."""
        path = self.path / BRIDGE_NAME
        return path if path.is_file() else None

    @cached_property
    def parts(self) -> RankerParts:
        """What a RankerRuntime is built from."""
        return self.ranker.parts(self.version, self.item_ids)


def _read_json(artefact: Artefact, name: str, kind: type) -> Any:
    path = artefact.file(name)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{path} cannot be read: {error}", "export the bundle again") from None
    if not isinstance(value, kind):
        raise ArtefactError(f"{path} holds a {type(value).__name__}, not a {kind.__name__}", "export the bundle again")
    return value


def _read_engine(artefact: Artefact) -> EngineReference:
    try:
        return EngineReference.model_validate(_read_json(artefact, ENGINE_NAME, dict))
    except ValidationError as error:
        raise ArtefactError(f"{artefact.path / ENGINE_NAME} is not valid: {error}", "export the bundle again") from None
