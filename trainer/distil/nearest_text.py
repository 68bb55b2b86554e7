"""The scorer that a ranker must beat on new items: text alone, as well as it can be made to rank."""

from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt

from llmgr_core.evaluation import evaluate, summarise
from llmgr_core.evaluation.new_items import NearestTextScorer
from llmgr_core.ranker.whitening import Whitening
from llmgr_core.sessions import Examples
from trainer.distil.student import TextVectors

DECAYS = (1.0, 0.8, 0.5)
RANKS = (0, 64, 256)
METRIC = "HR@10"
CHOSEN_ON = 2000


def nearest_text(
    text: TextVectors, train_counts: npt.NDArray[np.integer], validation: Examples
) -> tuple[NearestTextScorer, dict[str, float]]:
    """The best of plain and whitened text vectors and of three decays on held-out validation items.

    Args:
        text: of the catalogue.
        train_counts: int [V], training clicks; whitening is fitted on items that have some.
        validation: examples whose targets never appear in training; without any, plain vectors and no decay.

    Returns:
        The scorer, and what was chosen: ``decay``, ``whitened`` directions (0: plain vectors) and its validation HR@10.
    """
    fitted_on = text.vectors[text.present & (np.asarray(train_counts) > 0)]
    examples = validation.evenly_spread(CHOSEN_ON)
    best: tuple[float, NearestTextScorer, dict[str, float]] | None = None
    for rank, decay in product(RANKS, DECAYS):
        vectors = Whitening.fit(fitted_on, rank, 1.0).apply(text.vectors) if rank else text.vectors
        scorer = NearestTextScorer(vectors, text.present, decay)
        if not len(examples):
            return scorer, {"decay": decay, "whitened": float(rank)}
        value = summarise(evaluate(scorer, examples).masked)[METRIC]
        if best is None or value > best[0]:
            best = value, scorer, {"decay": decay, "whitened": float(rank), f"validation_{METRIC}": value}
    assert best is not None
    return best[1], best[2]
