"""Weights of a ranker that stands where a new one is to be made."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from llmgr_core.artefacts import Artefact, open_artefact
from llmgr_core.artefacts.directory import lineage_of
from llmgr_core.errors import ArtefactError
from llmgr_core.ranker.stored import StoredRanker
from llmgr_core.ranker.whitening import Whitening
from llmgr_core.settings.ranker_keys import training_settings
from trainer.catalogue_training.log import LOG_NAME
from trainer.distil.student import TextVectors

FITTED_METRICS = ("transitions", "id_prior", "calibration")


@dataclass(frozen=True)
class StandingRanker:
    """A ranker with the very weights that training would arrive at.

    Attributes:
        artefact: where it stands.
        trained: of it only the weights are of use.
        whitening: of its text vectors; None without text.
    """

    artefact: Artefact
    trained: StoredRanker
    whitening: Whitening | None

    @property
    def metrics(self) -> dict[str, Any]:
        """What its training measured."""
        return {name: value for name, value in self.artefact.manifest.metrics.items() if name not in FITTED_METRICS}

    @property
    def details(self) -> dict[str, Any]:
        """What stands beside the weights, and where they come from."""
        return {"weights_of": self.artefact.digest, **self.artefact.manifest.details}

    def copy_log(self, directory: Path) -> None:
        """Bring the log of its training along."""
        if (self.artefact.path / LOG_NAME).is_file():
            shutil.copyfile(self.artefact.path / LOG_NAME, directory / LOG_NAME)


def standing_ranker(
    path: Path, inputs: Sequence[Artefact], settings: Mapping[str, Any], text: TextVectors | None
) -> StandingRanker | None:
    """The ranker at ``path`` if it is whole and was trained from the same inputs, with the same settings and text.

    A ranker from before manifests said which text vectors it saw is taken by the fingerprint of their encoder.

    Args:
        path: of the ranker's artefact.
        inputs: of the ranker that is to be made.
        settings: those that determine it, of which a manifest tells.
        text: text vectors to train with; None without.
    """
    try:
        artefact = open_artefact(path, "ranker", verify=True)
        manifest = artefact.manifest
        wanted = training_settings(settings)
        trained = StoredRanker.read(path) if training_settings(manifest.settings) == wanted else None
    except (ArtefactError, ValidationError, KeyError):
        return None
    if trained is None or manifest.inputs != lineage_of(inputs):
        return None
    if text is None:
        return None if trained.transform else StandingRanker(artefact, trained, None)
    digest = text_digest(text)
    if trained.description.fingerprint != text.fingerprint or manifest.details.get("text_vectors", digest) != digest:
        return None
    fitted_on = text.vectors[(trained.popularity > 0) & text.present]
    whitening = Whitening.fit(fitted_on, wanted["distil"]["text_rank"], wanted["distil"]["whitening"])
    return StandingRanker(artefact, trained, whitening)


def text_digest(text: TextVectors) -> str:
    """SHA-256 of the text vectors that training sees, and of whose they are."""
    digest = hashlib.sha256(text.fingerprint.encode())
    digest.update(np.packbits(text.present).tobytes())
    digest.update(np.ascontiguousarray(text.vectors[text.present]).tobytes())
    return digest.hexdigest()
