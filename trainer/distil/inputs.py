"""What `llmgr distil` reads before it can train: text vectors from the store, and the teacher's rankings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from llmgr_core.artefacts import Artefact
from llmgr_core.data import Dataset
from llmgr_core.errors import ArtefactError
from llmgr_core.evaluation import Scorer, evaluate, summarise
from llmgr_core.progress import Reporter
from llmgr_core.ranker.tail_text import takes_text
from llmgr_core.sessions import Examples
from llmgr_core.settings import Settings
from trainer.distil.recipe import Tutoring
from trainer.distil.student import TextVectors
from trainer.distil.teacher_rankings import TeacherRankings, choose_examples, teacher_rankings

LEAST_COVERAGE = 0.5
CHECKED_EXAMPLES = 256


def read_text_vectors(store: Path, dataset: Dataset, fingerprint: str, below: int = 0) -> TextVectors:
    """Text vectors of the catalogue.

    Args:
        store: directory of the embedding store.
        fingerprint: of the encoder that made them.
        below: only of items with fewer training clicks than this; 0 takes all. Others count as items without text.

    Raises:
        ArtefactError: the store lacks the vectors of most items that have text, or no item to learn from has any.
        StoreError: no store, or none of this encoder's vectors in it.
    """
    from llmgr_core.store import EmbeddingStore

    with EmbeddingStore.open(store) as reader:
        vectors, present = reader.read_vectors(dataset.item_ids, fingerprint)
    wanted = takes_text(dataset.train_counts, below)
    if below:
        present = present & wanted
        vectors = np.where(present[:, None], vectors, np.float16(0.0))
    if not (present & (dataset.train_counts > 0)).any():
        if below:
            raise ArtefactError(
                f"{store} holds no vector, under encoder {fingerprint[:12]}, of any item with 1 to {below - 1} training clicks",
                "run `llmgr embed` first, or raise distil.text_below (0 takes text of every item)",
            )
        raise ArtefactError(
            f"{store} holds no vector of any item with a training click under encoder {fingerprint[:12]}",
            "run `llmgr embed` first (--untuned for frozen-text); where the items have no text at all, take --variant id-only",
        )
    with_text = np.array([text is not None for text in dataset.texts], dtype=np.bool_) & wanted
    missing = int((with_text & ~present).sum())
    if missing > (1.0 - LEAST_COVERAGE) * max(int(with_text.sum()), 1):
        raise ArtefactError(
            f"{store} lacks vectors of {missing} of {int(with_text.sum())} items under encoder {fingerprint[:12]}",
            "run `llmgr embed` (with --untuned for the frozen-text control) to its end first",
        )
    return TextVectors(vectors, present, fingerprint, below, missing)


def encoder_fingerprint(settings: Settings, dataset: Dataset, tuned: Artefact | None) -> str:
    """Under which fingerprint the store holds the vectors: of the tuned model, or (None) of the untuned one.

    Raises:
        ArtefactError: the base model here is another one than the adapter was trained on.
    """
    from llmgr_core.engine import SemanticEngine
    from llmgr_core.text import TextCleaner

    engine = SemanticEngine.load(settings.engine) if tuned is None else SemanticEngine.from_tuned(tuned, settings.engine)
    return engine.fingerprint(TextCleaner.from_state(dataset.cleaner_state).digest)


def tutoring(
    settings: Settings,
    dataset: Dataset,
    *,
    tuned: Artefact,
    backbone: Artefact,
    text: TextVectors,
    cache: Path,
    reporter: Reporter,
) -> tuple[Tutoring, dict[str, float]]:
    """Rankings of the tuned LLMGR on a stated share of the training prefixes.

    Returns:
        What the student learns from, and how good the teacher is there and on validation: the gap is what it memorised.
    """
    from trainer.tune.teacher import Teacher

    teacher = Teacher.load(tuned, dataset, backbone)
    key = {"tuned": tuned.digest, "dataset": dataset.digest}
    rankings, figures = ask(teacher, settings, dataset, key=key, cache=cache, reporter=reporter)
    item_part = None
    if settings.distil.row_pull:
        with torch.inference_mode():
            item_part = teacher.model.bridge.item_part(torch.from_numpy(text.vectors.astype(np.float32))).cpu().clone()
    return Tutoring(rankings, item_part), figures


def ask(
    teacher: Scorer, settings: Settings, dataset: Dataset, *, key: dict[str, str], cache: Path, reporter: Reporter
) -> tuple[TeacherRankings, dict[str, float]]:
    """Let a teacher rank a stated share of the training prefixes, and some validation examples.

    Args:
        teacher: scores all items after a prefix.
        key: everything that decides its scores.
        cache: where its rankings are kept.

    Returns:
        The rankings, and how good it is on both.

    Raises:
        InputError: the teacher gave NaN.
    """
    examples, distil = Examples.every_prefix(dataset.train), settings.distil
    chosen = choose_examples(len(examples), distil.teacher_examples, settings.seed)
    rankings = teacher_rankings(teacher, examples, chosen, top=distil.teacher_top, cache=cache, key=key, reporter=reporter)
    figures = {"teacher_examples": float(len(rankings)), "teacher_training_NDCG@20": rankings.ndcg20}
    if len(dataset.validation):
        ranks = evaluate(teacher, dataset.validation.evenly_spread(CHECKED_EXAMPLES), batch_size=128).unmasked
        figures["teacher_validation_NDCG@20"] = summarise(ranks)["NDCG@20"]
    return rankings, figures
