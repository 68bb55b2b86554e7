"""From trained weights to a ranker that can be stored: transition graph and term, temperature."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from llmgr_core.ranker.scoring import ScoringSettings
from llmgr_core.ranker.stored import RankerDescription, StoredRanker, Variant
from llmgr_core.ranker.text_lenders import TextLenders
from llmgr_core.ranker.whitening import Whitening
from llmgr_core.sessions import Examples, Sessions
from llmgr_core.settings.transitions import TransitionSettings
from llmgr_core.transitions import TransitionGraph
from llmgr_core.transitions.borrowing import BorrowedTransitions
from llmgr_core.transitions.text_smoothing import smooth_by_text
from trainer.distil.id_prior import fit_id_prior
from trainer.distil.scorer import RankerScorer
from trainer.distil.student import Student, TextVectors
from trainer.distil.temperature import fit_temperature
from trainer.distil.transition_weight import ScoreFunction, TransitionFit, fit_transition_weight


def trained_ranker(
    student: Student, variant: Variant, text: TextVectors | None, popularity: npt.NDArray[np.int64], include_seen: bool
) -> StoredRanker:
    """What training arrived at, as plain arrays: a ranker without transitions, its temperature 1."""
    settings = student.online.settings
    description = RankerDescription(
        variant=variant,
        num_items=student.online.num_items,
        encoder=settings,
        head_hidden=student.online.head_hidden,
        text_dimension=0 if text is None else text.vectors.shape[1],
        fingerprint="" if text is None else text.fingerprint,
        text_below=0 if text is None else text.below,
        scoring=ScoringSettings(include_seen=include_seen),
    )
    return StoredRanker(
        description=description,
        tensors={name: tensor.detach().cpu().numpy() for name, tensor in student.online.state_dict().items()},
        has_id=student.has_id.cpu().numpy(),
        popularity=np.asarray(popularity, dtype=np.int64),
        transform=None if student.transform is None else student.transform.folded(),
        transitions=_no_transitions(student.online.num_items),
    )


def finish_ranker(
    trained: StoredRanker,
    whitening: Whitening | None,
    text: TextVectors | None,
    *,
    train: Sessions,
    settings: TransitionSettings,
    validation: Examples,
    heldout: Examples,
    heldout_loss: float,
    id_priors: Sequence[float] = (0.0,),
    device: torch.device | str = "cpu",
) -> tuple[StoredRanker, dict[str, Any]]:
    """Make the transition graph; fit its term, how much IDs count, and the temperature.

    Of ``trained`` only the weights are read. How much IDs count is chosen under the transition term that fits the smallest
    kappa; the term is then fitted again.

    Args:
        trained: of ``trained_ranker``, or a finished ranker whose transitions and temperature are to be made anew.
        whitening: of the text vectors, the one it was trained with; None without text.
        text: text vectors it was trained with.
        train: sessions that transitions are counted in.
        validation: examples for both fits.
        heldout: validation examples whose targets never appear in training; may be empty.
        heldout_loss: see DistilSettings.
        id_priors: values of kappa to choose from.
        device: where sessions are encoded.

    Returns:
        The ranker, and what was measured on the way.
    """
    include_seen, popularity = trained.description.scoring.include_seen, trained.popularity
    graph, lenders = served_transitions(train, settings, popularity, whitening, text)
    bare = bare_ranker(trained)
    vectors, present = (None, None) if text is None else (text.vectors, text.present)
    lent = BorrowedTransitions(graph)
    if lenders is not None and text is not None:
        lent = lenders.lend(graph, text.vectors, (popularity == 0) & text.present)

    def scores_of(prior: float) -> ScoreFunction:
        described = bare.description.model_copy(update={"id_prior": prior})
        return RankerScorer(dataclasses.replace(bare, description=described), vectors, present, device=device).scores

    def fitted(prior: float) -> TransitionFit:
        return fit_transition_weight(
            scores_of(prior), lent, validation, heldout, include_seen=include_seen, heldout_loss=heldout_loss
        )

    first, *others = sorted(set(id_priors))
    transitions = fitted(first)
    priors = fit_id_prior(first, others, scores_of, lent, transitions, validation, include_seen=include_seen)
    if priors.chosen != first:
        transitions = fitted(priors.chosen)
    bare_scores = scores_of(priors.chosen)

    def with_transitions(examples: Examples) -> Tensor:
        terms = lent.scores(examples.prefixes(graph.settings.clicks))
        return bare_scores(examples) + transitions.weight * torch.log1p(transitions.slope * terms)

    temperature = fit_temperature(with_transitions, validation, include_seen=include_seen)
    scoring = ScoringSettings(
        transition_weight=transitions.weight,
        transition_slope=transitions.slope,
        temperature=temperature.temperature,
        include_seen=include_seen,
    )
    description = bare.description.model_copy(update={"scoring": scoring, "id_prior": priors.chosen})
    finished = dataclasses.replace(bare, description=description, transitions=graph, lenders=lenders)
    measured = {"transitions": asdict(transitions), "calibration": asdict(temperature)}
    return finished, {**measured, "id_prior": asdict(priors)} if others else measured


def bare_ranker(ranker: StoredRanker) -> StoredRanker:
    """The weights of a ranker alone: no transitions, IDs count whole, and its scores are its logits."""
    scoring = ScoringSettings(include_seen=ranker.description.scoring.include_seen)
    return dataclasses.replace(
        ranker,
        description=ranker.description.model_copy(update={"scoring": scoring, "id_prior": 0.0}),
        transitions=_no_transitions(ranker.description.num_items),
        lenders=None,
    )


def served_transitions(
    train: Sessions,
    settings: TransitionSettings,
    popularity: npt.NDArray[np.int64],
    whitening: Whitening | None,
    text: TextVectors | None,
) -> tuple[TransitionGraph, TextLenders | None]:
    """The graph as the ranker looks it up, and of whom items without a training click borrow; nobody without text.

    With text, transitions are shared between text neighbours (see smooth_by_text).
    """
    graph = TransitionGraph.build(train, len(popularity), settings).pruned()
    if whitening is None or text is None or settings.text_neighbours == 0:
        return graph, None
    whitened = np.where(text.present[:, None], whitening.apply(text.vectors), np.float32(0.0))
    lenders = TextLenders.collect(whitening, text.vectors, (popularity > 0) & text.present, settings.text_new_rank)
    return smooth_by_text(graph, whitened, train.click_counts(len(popularity))), lenders


def _no_transitions(num_items: int) -> TransitionGraph:
    none = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)
    return TransitionGraph(TransitionSettings(), np.zeros(num_items + 1, dtype=np.int64), *none)
