"""Artefact directories: what one step writes and the next one reads."""

from llmgr_core.artefacts.directory import Artefact, Draft, draft_artefact, open_artefact
from llmgr_core.artefacts.manifest import Manifest

__all__ = ["Artefact", "Draft", "Manifest", "draft_artefact", "open_artefact"]
