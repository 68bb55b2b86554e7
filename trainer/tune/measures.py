"""Figures printed before and after a stage, so that a user sees whether it did anything."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from llmgr_core.data import Dataset
from llmgr_core.encoders import Backbone
from llmgr_core.engine.hybrid_model import COSINE_SCALE, HybridModel
from llmgr_core.engine.prompt_batches import PromptBatches
from llmgr_core.evaluation import BackboneScorer, Scorer, evaluate, summarise
from llmgr_core.graphs import SessionBatch
from llmgr_core.sessions import Examples
from trainer.tune.candidates import HardCandidates
from trainer.tune.teacher import Teacher

SHOWN_EXAMPLES = 500
METRIC = "NDCG@20"
TEXT_GATES = (0.03, 0.1, 0.2, 0.3, 0.5, 0.8)


class TextNeighbours:
    """Ranks items by the cosine of their text vector with that of the last click: what text knows without any ranker.

    Args:
        vectors: float32 [V, D], zero rows for items without text.
        fitted_on: bool [V], items whose mean is taken off; common parts of all vectors say nothing.
    """

    name = "text neighbours"

    def __init__(self, vectors: npt.NDArray[np.float32], fitted_on: npt.NDArray[np.bool_]) -> None:
        rows = torch.from_numpy(vectors)
        has_text = rows.abs().amax(dim=1, keepdim=True) > 0
        centred = (rows - rows[torch.from_numpy(fitted_on)].mean(dim=0)) * has_text
        self._directions = torch.nn.functional.normalize(centred, dim=1)

    def scores(self, examples: Examples) -> Tensor:
        last = torch.from_numpy(examples.items[examples.ends - 1].astype(np.int64))
        return self._directions[last] @ self._directions.T


def text_neighbour_quality(vectors: npt.NDArray[np.float32], dataset: Dataset) -> float:
    """Validation NDCG@20 of TextNeighbours, seen items masked; on at most 2,000 examples, evenly spread."""
    fitted_on = (dataset.train_counts > 0) & (np.abs(vectors).max(axis=1) > 0)
    return _quality(TextNeighbours(vectors, fitted_on), dataset.validation.evenly_spread(2000))


def teacher_quality(model: HybridModel, batches: PromptBatches, batch_tokens: int, validation: Examples) -> float:
    """Validation NDCG@20 of the model with the language model in the loop, seen items masked; at most 500 examples."""
    model.eval()
    return _quality(Teacher(model, batches, batch_tokens), validation.evenly_spread(SHOWN_EXAMPLES))


def teacher_figures(model: HybridModel, batches: PromptBatches, batch_tokens: int, validation: Examples) -> dict[str, float]:
    """NDCG@20 of the same model, and the share of targets that it ranks first (``accuracy``); none of the prefixes is empty."""
    model.eval()
    ranks = evaluate(Teacher(model, batches, batch_tokens), validation).masked
    return {"ndcg20": summarise(ranks)[METRIC], "accuracy": float((ranks <= 1).mean())}


def backbone_quality(backbone: Backbone, validation: Examples) -> float:
    """The same of the backbone as it stands, on the same examples."""
    training = backbone.training
    quality = _quality(BackboneScorer(backbone.eval()), validation.evenly_spread(SHOWN_EXAMPLES))
    backbone.train(training)
    return quality


def best_text_gate(model: HybridModel, validation: Examples) -> float:
    """Weight b of the text part with which z_s and t_s together, before the language model adds to them, rank best.

    Chosen by validation NDCG@20 on at most 2,000 examples; never below a small positive number, from which training could not
    raise it again.
    """
    training = model.backbone.training
    model.backbone.eval()
    some = validation.evenly_spread(2000)
    qualities = {gate: _quality(_WithoutLanguageModel(model, gate), some) for gate in TEXT_GATES}
    model.backbone.train(training)
    return max(qualities, key=lambda gate: (qualities[gate], -gate)) if len(some) else TEXT_GATES[0]


class _WithoutLanguageModel:
    """scale * <z_s, x_v> + COSINE_SCALE * b <t_s, t_v>."""

    name = "backbone and text rows"

    def __init__(self, model: HybridModel, gate: float) -> None:
        self._model, self._gate = model, gate

    @torch.no_grad()
    def scores(self, examples: Examples) -> Tensor:
        model = self._model
        prefixes = examples.prefixes(model.backbone.settings.max_clicks)
        batch = SessionBatch.from_sessions(prefixes, device=model.text_rows.device)
        vectors = model.backbone.encode(batch).float()
        if model.backbone.logits.cosine:
            vectors = torch.nn.functional.normalize(vectors, dim=1)
        text = COSINE_SCALE * self._gate * (model.session_text(batch) @ model.text_rows.T)
        return (model.scale * (vectors @ model.id_rows().T) + text).cpu()


def candidate_accuracy(
    model: HybridModel, batches: PromptBatches, hard: HardCandidates, items: npt.NDArray[np.int64], seed: int
) -> float:
    """Share of items for which the auxiliary prompt's answer is right; candidates as in training, the same at each call."""
    if not len(items):
        return float("nan")
    model.eval()
    rng = np.random.default_rng([seed, 3])
    correct = 0
    with torch.inference_mode():
        for start in range(0, len(items), 32):
            part = items[start : start + 32]
            batch = batches.auxiliary(part, hard.draw(part, model.settings.candidates, rng))
            correct += int((model.candidate_logits(batch).argmax(dim=1) == batch.answers).sum())
    return correct / len(items)


def _quality(scorer: Scorer, examples: Examples) -> float:
    examples = examples.select(examples.ends > examples.starts)
    if not len(examples):
        return float("nan")
    return summarise(evaluate(scorer, examples).masked)[METRIC]
