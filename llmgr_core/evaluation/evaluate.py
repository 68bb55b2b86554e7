"""Ranking the targets of many examples with one scorer."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llmgr_core.evaluation.ranks import expected_ranks
from llmgr_core.evaluation.scorers import Scorer
from llmgr_core.progress import Reporter
from llmgr_core.sessions import Examples


@dataclass(frozen=True)
class Ranks:
    """Expected rank of each example's target under one scorer.

    Attributes:
        name: the scorer's.
        masked, unmasked: float32 [n], with the items of the prefix left out of the ranking, and with them in it.
        seconds: time the scorer and the ranking took.
    """

    name: str
    masked: npt.NDArray[np.float32]
    unmasked: npt.NDArray[np.float32]
    seconds: float

    def __len__(self) -> int:
        return len(self.masked)

    def of(self, masking: str) -> npt.NDArray[np.float32]:
        """The ranks under "masked" or "unmasked"."""
        return self.masked if masking == "masked" else self.unmasked


def evaluate(scorer: Scorer, examples: Examples, *, batch_size: int = 512, reporter: Reporter | None = None) -> Ranks:
    """Rank the target of every example among all items, with seen items masked and not.

    Raises:
        ValueError: the scorer returned NaN.
    """
    started = time.perf_counter()
    masked = np.empty(len(examples), dtype=np.float32)
    unmasked = np.empty(len(examples), dtype=np.float32)
    starts = range(0, len(examples), batch_size)
    for start in reporter.track(starts, f"evaluate {scorer.name}") if reporter else starts:
        piece = slice(start, start + batch_size)
        batch = examples.select(piece)
        masked[piece], unmasked[piece] = expected_ranks(scorer.scores(batch), batch.targets, batch.prefixes())
    return Ranks(scorer.name, masked, unmasked, time.perf_counter() - started)
