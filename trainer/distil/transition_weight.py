"""How much the sparse transition term weighs, fitted on validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from llmgr_core.evaluation import summarise
from llmgr_core.sessions import Examples
from llmgr_core.transitions import TransitionGraph
from llmgr_core.transitions.borrowing import BorrowedTransitions

ScoreFunction = Callable[[Examples], Tensor]
"""Examples to logits, float32 [B, V]; minus infinity for what cannot be ranked."""

METRIC = "NDCG@20"
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0, 16.0)
SLOPES = (5.0, 20.0, 80.0)
KEPT = 64
SCORES_AT_ONCE = 6_000_000


@dataclass(frozen=True)
class TransitionFit:
    """The chosen term w log(1 + c t) and what it does.

    Attributes:
        weight, slope: w and c.
        validation: NDCG@20 on validation with it.
        validation_without: NDCG@20 with w = 0.
        heldout, heldout_without: the same on held-out validation items; None where the data has none.
    """

    weight: float
    slope: float
    validation: float
    validation_without: float
    heldout: float | None
    heldout_without: float | None


def fit_transition_weight(
    score: ScoreFunction,
    graph: TransitionGraph | BorrowedTransitions,
    validation: Examples,
    heldout: Examples,
    *,
    include_seen: bool,
    heldout_loss: float,
) -> TransitionFit:
    """Search w and c on a grid for the best validation NDCG@20, under the masking that serving uses.

    A held-out item has no transitions but those it borrows, so that w > 0 tends to push it down; only terms are allowed that
    cost at most ``heldout_loss`` of the NDCG@20 on held-out validation items.
    """
    warm = _Contenders.collect(score, graph, validation, include_seen)
    cold = _Contenders.collect(score, graph, heldout, include_seen)
    without = warm.metric(0.0, SLOPES[0])
    cold_without = cold.metric(0.0, SLOPES[0])
    best = TransitionFit(0.0, SLOPES[0], without or 0.0, without or 0.0, cold_without, cold_without)
    for slope in SLOPES:
        for weight in WEIGHTS[1:]:
            value, cold_value = warm.metric(weight, slope), cold.metric(weight, slope)
            if value is None or value <= best.validation:
                continue
            if cold_value is not None and cold_without is not None and cold_value < (1.0 - heldout_loss) * cold_without:
                continue
            best = TransitionFit(weight, slope, value, best.validation_without, cold_value, cold_without)
    return best


def validation_metric(
    score: ScoreFunction,
    graph: TransitionGraph | BorrowedTransitions,
    validation: Examples,
    *,
    weight: float,
    slope: float,
    include_seen: bool,
) -> float:
    """NDCG@20 on validation under a given term; 0 without examples."""
    return _Contenders.collect(score, graph, validation, include_seen).metric(weight, slope) or 0.0


@dataclass(frozen=True)
class _Contenders:
    """For each example the items that can reach its top 20 under some w: the best by logit alone, and all with a transition.

    Attributes:
        example: int64 [M], example of each entry.
        logit, transition: float32 [M].
        target_logit, target_transition: float32 [n].
    """

    example: npt.NDArray[np.int64]
    logit: npt.NDArray[np.float32]
    transition: npt.NDArray[np.float32]
    target_logit: npt.NDArray[np.float32]
    target_transition: npt.NDArray[np.float32]

    @classmethod
    @torch.inference_mode()
    def collect(
        cls, score: ScoreFunction, graph: TransitionGraph | BorrowedTransitions, examples: Examples, include_seen: bool
    ) -> _Contenders:
        parts: list[tuple[npt.NDArray[np.generic], ...]] = []
        first = 0
        for batch in in_blocks(examples, graph.num_items):
            logits = hide_seen(score(batch), batch, include_seen)
            transitions = graph.scores(batch.prefixes(graph.settings.clicks))
            target = torch.from_numpy(batch.targets.astype(np.int64))[:, None]
            target_logit, target_transition = logits.gather(1, target), transitions.gather(1, target)
            entry = transitions > 0
            entry.scatter_(1, logits.topk(min(KEPT, logits.shape[1]), dim=1).indices, True)
            entry.scatter_(1, target, False)
            row, item = entry.nonzero(as_tuple=True)
            columns = (row + first, logits[row, item], transitions[row, item], target_logit[:, 0], target_transition[:, 0])
            parts.append(tuple(column.numpy() for column in columns))
            first += len(batch)
        if not parts:
            nothing = np.zeros(0, dtype=np.float32)
            return cls(np.zeros(0, dtype=np.int64), nothing, nothing, nothing, nothing)
        return cls(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def metric(self, weight: float, slope: float) -> float | None:
        """NDCG@20 under this term; None without examples."""
        if not len(self.target_logit):
            return None
        scores = self.logit + np.float32(weight) * np.log1p(np.float32(slope) * self.transition)
        targets = self.target_logit + np.float32(weight) * np.log1p(np.float32(slope) * self.target_transition)
        size = len(targets)
        above = np.bincount(self.example, weights=scores > targets[self.example], minlength=size)
        level = np.bincount(self.example, weights=scores == targets[self.example], minlength=size)
        ranks = np.where(np.isfinite(targets), 1 + above + level / 2, np.inf)
        return summarise(ranks)[METRIC]


def in_blocks(examples: Examples, num_items: int) -> Iterator[Examples]:
    """Consecutive examples, so many at a time that their scores of all items stay within bounds."""
    size = max(SCORES_AT_ONCE // max(num_items, 1), 1)
    for start in range(0, len(examples), size):
        yield examples.select(slice(start, start + size))


def hide_seen(scores: Tensor, examples: Examples, include_seen: bool) -> Tensor:
    """Scores with the items of each prefix at minus infinity, unless they may be ranked."""
    if include_seen:
        return scores
    seen = examples.prefixes()
    row = torch.from_numpy(np.repeat(np.arange(len(examples)), seen.lengths))
    return scores.index_put_((row, torch.from_numpy(seen.items.astype(np.int64))), torch.tensor(-torch.inf))
