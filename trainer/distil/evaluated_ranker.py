"""A trained ranker as evaluation sees it, read from its artefact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from llmgr_core.artefacts import Artefact
from llmgr_core.data import Dataset
from llmgr_core.evaluation import Scorer
from llmgr_core.ranker.stored import StoredRanker
from llmgr_core.sessions import Examples
from llmgr_core.settings.controls import ControlSettings
from trainer.distil.controls import controlled_text, shuffled_clicks
from trainer.distil.inputs import read_text_vectors
from trainer.distil.scorer import RankerScorer
from trainer.distil.student import TextVectors


def controls_of(ranker: Artefact) -> ControlSettings:
    """What an experiment took away from a trained ranker."""
    return ControlSettings.model_validate(ranker.manifest.settings.get("distil", {}).get("controls", {}))


def ranker_scorer(
    ranker: Artefact,
    dataset: Dataset,
    store: Path,
    name: str,
    *,
    with_transitions: bool = True,
    changed: Callable[[TextVectors], TextVectors] | None = None,
) -> Scorer:
    """An online ranker as exported: with its transition term and temperature, its text vectors from the store.

    What an experiment took away from the ranker is taken away here too.

    Args:
        with_transitions: False leaves the transition term out.
        changed: what an experiment does to the text vectors of the trained ranker.

    Raises:
        ArtefactError, StoreError: the store lacks the vectors.
    """
    stored = StoredRanker.read(ranker.path)
    controls = controls_of(ranker)
    vectors, present = None, None
    if stored.transform is not None:
        described = stored.description
        text = read_text_vectors(store, dataset, described.fingerprint, described.text_below)
        text = controlled_text(text, controls.text_vectors)
        text = text if changed is None else changed(text)
        vectors, present = text.vectors, text.present
    scorer = RankerScorer(stored, vectors, present, with_transitions=with_transitions, name=name)
    return _ShuffledHistory(scorer) if controls.history == "shuffled" else scorer


class _ShuffledHistory:
    """A ranker that sees the clicks of every prefix in a random order."""

    def __init__(self, scorer: RankerScorer) -> None:
        self.name, self.calibrated, self._scorer = scorer.name, scorer.calibrated, scorer

    def scores(self, examples: Examples) -> Tensor:
        return self._scorer.scores(shuffled_clicks(examples))
