"""From trained weights to a ranker that can be served: transition weight, temperature, folded transform."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from llmgr_core.ranker.scoring import ScoringSettings
from llmgr_core.ranker.stored import RankerDescription, StoredRanker, Variant
from llmgr_core.ranker.text_lenders import TextLenders
from llmgr_core.sessions import Examples, Sessions
from llmgr_core.settings.transitions import TransitionSettings
from llmgr_core.transitions import TransitionGraph
from llmgr_core.transitions.borrowing import BorrowedTransitions
from llmgr_core.transitions.text_smoothing import smooth_by_text
from trainer.distil.recipe import StudentScorer
from trainer.distil.student import Student, TextVectors
from trainer.distil.temperature import fit_temperature
from trainer.distil.transition_weight import fit_transition_weight


def served_transitions(train: Sessions, settings: TransitionSettings, student: Student) -> TransitionGraph:
    """The graph that serving looks up: with text, items share transitions with their text neighbours (see smooth_by_text)."""
    clicks = train.click_counts(student.online.num_items)
    graph = TransitionGraph.build(train, student.online.num_items, settings)
    if student.transform is None or settings.text_neighbours == 0:
        return graph.pruned()
    return smooth_by_text(graph, student.whitened.cpu().numpy(), clicks)


def text_lenders(
    student: Student, text: TextVectors | None, popularity: npt.NDArray[np.int64], settings: TransitionSettings
) -> TextLenders | None:
    """Of whom items without a training click borrow transitions (see BorrowedTransitions); nobody without text."""
    if student.transform is None or text is None or settings.text_neighbours == 0:
        return None
    return TextLenders.collect(
        student.transform.whitening, text.vectors, (popularity > 0) & text.present, settings.text_new_rank
    )


def finish_ranker(
    student: Student,
    variant: Variant,
    text: TextVectors | None,
    *,
    graph: TransitionGraph,
    popularity: npt.NDArray[np.int64],
    validation: Examples,
    heldout: Examples,
    include_seen: bool,
    heldout_loss: float,
) -> tuple[StoredRanker, dict[str, Any]]:
    """Fit what scoring needs on validation examples and put the ranker together.

    Args:
        student: trained, in evaluation mode.
        variant, text: what it was trained with.
        graph: pruned transition graph, the one that will be served.
        popularity: int64 [V], training clicks.
        validation, heldout: validation examples with warm and with held-out targets; either may be empty.
        include_seen: whether serving ranks items of the session by default.
        heldout_loss: see fit_transition_weight.

    Returns:
        The ranker, and what was measured on the way.
    """
    scorer = StudentScorer(student)
    lenders = text_lenders(student, text, popularity, graph.settings)
    lent = BorrowedTransitions(graph)
    if lenders is not None and text is not None:
        lent = lenders.lend(graph, text.vectors, (popularity == 0) & text.present)
    transitions = fit_transition_weight(
        scorer.scores, lent, validation, heldout, include_seen=include_seen, heldout_loss=heldout_loss
    )

    def with_transitions(examples: Examples) -> Tensor:
        terms = lent.scores(examples.prefixes(graph.settings.clicks))
        return scorer.scores(examples) + transitions.weight * torch.log1p(transitions.slope * terms)

    temperature = fit_temperature(with_transitions, validation, include_seen=include_seen)
    description = RankerDescription(
        variant=variant,
        num_items=student.online.num_items,
        encoder=student.online.settings,
        head_hidden=student.online.head_hidden,
        text_dimension=0 if text is None else text.vectors.shape[1],
        fingerprint="" if text is None else text.fingerprint,
        scoring=ScoringSettings(
            transition_weight=transitions.weight,
            transition_slope=transitions.slope,
            temperature=temperature.temperature,
            include_seen=include_seen,
        ),
        text_below=0 if text is None else text.below,
    )
    stored = StoredRanker(
        description=description,
        tensors={name: tensor.detach().float().numpy() for name, tensor in student.online.state_dict().items()},
        has_id=student.has_id.numpy(),
        popularity=np.asarray(popularity, dtype=np.int64),
        transform=None if student.transform is None else student.transform.folded(),
        transitions=graph,
        lenders=lenders,
    )
    return stored, {"transitions": asdict(transitions), "calibration": asdict(temperature)}
