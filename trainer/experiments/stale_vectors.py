"""Rankings as they are when some items still have the vectors of another language model than the ranker was trained with."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmgr_core.artefacts import Manifest, open_artefact
from llmgr_core.data import Dataset
from llmgr_core.settings import Settings
from trainer.distil.controls import CONTROL_SEED
from trainer.distil.inputs import encoder_fingerprint, read_text_vectors
from trainer.distil.student import TextVectors
from trainer.experiments.definition import Stale
from trainer.experiments.links import Link


@dataclass(frozen=True)
class StaleVectors:
    """The vectors that stale items have, and which items those are.

    Items are drawn at random, the same ones for every source and more of them for a larger share, whatever the seed of the run.

    Attributes:
        stale: what the row says.
        settings: of the model that made them.
        store: where they are; None where stale items have no vector at all.
        tuned: that model; None for the one that was never tuned.
    """

    stale: Stale
    settings: Settings
    store: Link | None
    tuned: Link | None

    def facts(self) -> dict[str, Any]:
        """What decides them, beside the data set and the ranker."""
        model = self.settings.engine.model_dump() if self.tuned is None else Manifest.read(self.tuned.path).digest
        return {"stale": self.stale.share, "vectors": self.stale.vectors, "model": None if self.store is None else model}

    def put_into(self, text: TextVectors, dataset: Dataset) -> TextVectors:
        """The vectors with stale ones in their place.

        Raises:
            ArtefactError, StoreError: the store lacks them.
        """
        with_text = np.flatnonzero(text.present)
        order = np.random.default_rng(CONTROL_SEED).permutation(with_text)
        chosen = order[: round(self.stale.share * len(order))]
        vectors, present = text.vectors.copy(), text.present.copy()
        if self.store is None:
            vectors[chosen], present[chosen] = 0, False
        else:
            tuned = None if self.tuned is None else open_artefact(self.tuned.path, "tuned")
            fingerprint = encoder_fingerprint(self.settings, dataset, tuned)
            other = read_text_vectors(self.store.path, dataset, fingerprint, text.below)
            vectors[chosen], present[chosen] = other.vectors[chosen], other.present[chosen]
        return dataclasses.replace(text, vectors=vectors, present=present)
