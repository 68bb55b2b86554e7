"""The file that names an engine: engine.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from llmgr_core.engine.prompts import PROMPT_VERSION
from llmgr_core.errors import ArtefactError
from llmgr_core.settings.engine import EngineSettings

REFERENCE_NAME = "engine.json"


@dataclass(frozen=True)
class EngineReference:
    """Which engine exactly.

    Attributes:
        settings: section [engine] it was made with.
        base_hash: SHA-256 of the base model's files.
        adapter_hash: SHA-256 of the adapter's weights, "" without one.
        hidden_size: D.
        prompt_version: of the words around texts.
    """

    settings: EngineSettings
    base_hash: str
    adapter_hash: str
    hidden_size: int
    prompt_version: str = PROMPT_VERSION

    def write(self, directory: Path) -> None:
        """Write engine.json into an existing directory."""
        value = {
            "settings": self.settings.model_dump(),
            "base_hash": self.base_hash,
            "adapter_hash": self.adapter_hash,
            "hidden_size": self.hidden_size,
            "prompt_version": self.prompt_version,
        }
        (directory / REFERENCE_NAME).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, directory: Path) -> EngineReference:
        """Read engine.json.

        Raises:
            ArtefactError: missing, not valid, or of a prompt version this program does not speak.
        """
        path = directory / REFERENCE_NAME
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            reference = cls(
                settings=EngineSettings.model_validate(value["settings"]),
                base_hash=str(value["base_hash"]),
                adapter_hash=str(value["adapter_hash"]),
                hidden_size=int(value["hidden_size"]),
                prompt_version=str(value["prompt_version"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtefactError(f"{path} does not name an engine: {error}", "run `llmgr tune` or export again") from None
        if reference.prompt_version != PROMPT_VERSION:
            raise ArtefactError(
                f"{path} is of prompt version {reference.prompt_version}; this program speaks version {PROMPT_VERSION}",
                "tune again with this version of llmgr",
            )
        return reference

    def require(self, base_hash: str, adapter_hash: str) -> None:
        """Compare with what was loaded.

        Raises:
            ArtefactError: another base model, or a changed adapter.
        """
        if base_hash != self.base_hash:
            raise ArtefactError(
                f"base model {self.settings.model!r} on this machine has weights {base_hash[:12]}, "
                f"the engine was made with {self.base_hash[:12]}",
                "fetch the very model it was tuned on, or tune again",
            )
        if adapter_hash != self.adapter_hash:
            raise ArtefactError(
                f"the adapter has weights {adapter_hash[:12]}, engine.json names {self.adapter_hash[:12]}",
                "restore the directory or make it again",
            )
