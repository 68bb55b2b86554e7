"""Ranking the targets of many examples with one scorer."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llmgr_core.errors import InputError
from llmgr_core.evaluation.calibration import expected_calibration_error, top_probabilities
from llmgr_core.evaluation.ranks import NaNScoreError, expected_ranks
from llmgr_core.evaluation.scorers import Scorer
from llmgr_core.progress import Reporter
from llmgr_core.sessions import Examples

Ints = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Ranks:
    """Expected rank of each example's target under one scorer.

    Attributes:
        name: the scorer's.
        masked, unmasked: float32 [n], with the items of the prefix left out of the ranking, and with them in it.
        seconds: time the scorer and the ranking took.
        calibration_error: error of the probability given to the first item of each ranking, by masking; None for a scorer
            whose scores are not meant as logits of probabilities.
    """

    name: str
    masked: npt.NDArray[np.float32]
    unmasked: npt.NDArray[np.float32]
    seconds: float = 0.0
    calibration_error: dict[str, float] | None = None

    def __len__(self) -> int:
        return len(self.masked)

    def of(self, masking: str) -> npt.NDArray[np.float32]:
        """The ranks under "masked" or "unmasked"."""
        return self.masked if masking == "masked" else self.unmasked

    def select(self, which: Ints) -> Ranks:
        """The ranks of some examples only."""
        return Ranks(self.name, self.masked[which], self.unmasked[which], self.seconds)


def evaluate(scorer: Scorer, examples: Examples, *, batch_size: int = 512, reporter: Reporter | None = None) -> Ranks:
    """Rank the target of every example among all items, with seen items masked and not.

    A scorer with a true attribute ``calibrated`` says that softmax of its scores are probabilities; how true they are is
    measured then.

    Raises:
        InputError: the scorer returned NaN; the message names scorer and example.
    """
    started = time.perf_counter()
    total = len(examples)
    masked, unmasked = np.empty(total, dtype=np.float32), np.empty(total, dtype=np.float32)
    calibrated = bool(getattr(scorer, "calibrated", False))
    stated = {masking: np.empty(total) for masking in ("masked", "unmasked")} if calibrated else {}
    hit = {masking: np.empty(total, dtype=np.bool_) for masking in stated}
    starts = range(0, total, batch_size)
    for start in reporter.track(starts, f"evaluate {scorer.name}") if reporter else starts:
        piece = slice(start, start + batch_size)
        batch = examples.select(piece)
        scores, seen = scorer.scores(batch), batch.prefixes()
        try:
            masked[piece], unmasked[piece] = expected_ranks(scores, batch.targets, seen)
        except NaNScoreError as error:
            number = start + error.example
            raise InputError(
                f"scorer {scorer.name!r} gives NaN as a score for example {number} (session {examples.sessions[number]}, "
                f"target item {examples.targets[number]})",
                "its weights or vectors hold NaN: make them again; where it happens in training, lower the learning rate",
            ) from None
        for masking, probabilities in stated.items():
            probabilities[piece], top = top_probabilities(scores, seen if masking == "masked" else None)
            hit[masking][piece] = top == batch.targets
    errors = {masking: expected_calibration_error(stated[masking], hit[masking]) for masking in stated}
    return Ranks(scorer.name, masked, unmasked, time.perf_counter() - started, errors or None)
