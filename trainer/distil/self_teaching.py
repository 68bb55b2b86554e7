"""The ranker as its own teacher: what a student gains from any teacher, no language model needed."""

from __future__ import annotations

from pathlib import Path

from llmgr_core.artefacts import Artefact
from llmgr_core.data import Dataset
from llmgr_core.progress import Reporter
from llmgr_core.ranker.stored import StoredRanker
from llmgr_core.settings import Settings
from trainer.distil.finishing import bare_ranker
from trainer.distil.inputs import ask
from trainer.distil.recipe import Tutoring
from trainer.distil.scorer import RankerScorer
from trainer.distil.standing_ranker import text_digest
from trainer.distil.student import TextVectors


def tutoring_by_ranker(
    settings: Settings, dataset: Dataset, *, ranker: Artefact, text: TextVectors, cache: Path, reporter: Reporter
) -> tuple[Tutoring, dict[str, float]]:
    """Rankings of a trained ranker on the prefixes that the tuned LLMGR would rank: its logits, as the student has them.

    Without the transition term and the temperature, which the student does not train with either.

    Args:
        ranker: the teacher.
        text: text vectors it was trained with.

    Returns:
        As ``trainer.distil.inputs.tutoring``.
    """
    stored = bare_ranker(StoredRanker.read(ranker.path))
    teacher = RankerScorer(stored, text.vectors, text.present, name="ranker without a teacher")
    key = {"ranker": ranker.digest, "dataset": dataset.digest, "text": text_digest(text)}
    rankings, figures = ask(teacher, settings, dataset, key=key, cache=cache, reporter=reporter)
    return Tutoring(rankings), figures
