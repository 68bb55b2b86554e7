"""How much an item's ID vector counts beside its text, chosen on validation.

An ID vector that was trained on two clicks knows little; text knows as much of a rare item as of any other. n / (n + kappa) is
the weight that an estimate of n observations has against a prior worth kappa of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llmgr_core.sessions import Examples
from llmgr_core.transitions.borrowing import BorrowedTransitions
from trainer.distil.transition_weight import ScoreFunction, TransitionFit, validation_metric


@dataclass(frozen=True)
class IdPriorFit:
    """The chosen kappa.

    Attributes:
        chosen: kappa.
        validation: NDCG@20 on validation by kappa, all under the transition term that fits the smallest.
    """

    chosen: float
    validation: dict[str, float]


def fit_id_prior(
    first: float,
    others: Sequence[float],
    scores_of: Callable[[float], ScoreFunction],
    graph: BorrowedTransitions,
    term: TransitionFit,
    validation: Examples,
    *,
    include_seen: bool,
) -> IdPriorFit:
    """The kappa with the best validation NDCG@20, the smallest of equals.

    Args:
        first: the one that ``term`` was fitted with.
        others: what else to try, ascending.
        scores_of: kappa to a ranker's logits.
        graph: transitions.
        term: their weight and slope.
    """
    chosen, tried = first, {f"{first:g}": term.validation}
    for prior in others:
        tried[f"{prior:g}"] = validation_metric(
            scores_of(prior), graph, validation, weight=term.weight, slope=term.slope, include_seen=include_seen
        )
        if tried[f"{prior:g}"] > tried[f"{chosen:g}"]:
            chosen = prior
    return IdPriorFit(chosen, tried)
