"""The temperature that makes softmax scores probabilities, fitted on validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from llmgr_core.evaluation import expected_calibration_error
from llmgr_core.sessions import Examples
from trainer.distil.transition_weight import ScoreFunction, hide_seen, in_blocks

LOGITS_AT_MOST = 60_000_000
LOWEST, HIGHEST = 0.05, 20.0
TOLERANCE = 1e-3
GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
TOP = 20


@dataclass(frozen=True)
class TemperatureFit:
    """The temperature and its effect on examples it was not fitted on.

    Attributes:
        temperature: minimises the negative log-likelihood of one half of the examples.
        nll_before, nll_after: mean negative log-likelihood on the other half, nats.
        ece_before, ece_after: expected calibration error of the 20 most probable items of each of those examples.
        examples: how many it was fitted on.
    """

    temperature: float
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float
    examples: int


def fit_temperature(score: ScoreFunction, examples: Examples, *, include_seen: bool) -> TemperatureFit:
    """Golden-section search on log T, under the masking that serving uses.

    Examples whose target is masked or cannot be ranked say nothing about T and are left out. So many examples are used as their
    scores fit in memory, evenly spread.

    Args:
        score: uncalibrated scores, the transition term included.
    """
    if not len(examples):
        return TemperatureFit(1.0, 0.0, 0.0, 0.0, 0.0, 0)
    width = score(examples.select(slice(0, 1))).shape[1]
    used = min(len(examples), max(LOGITS_AT_MOST // width, 2))
    chosen = examples.select(np.arange(used, dtype=np.int64) * len(examples) // used)
    scores, targets = _usable_scores(score, chosen, width, include_seen)
    fitting, checking = (scores[::2], targets[::2]), (scores[1::2], targets[1::2])
    if not len(checking[1]):
        return TemperatureFit(1.0, 0.0, 0.0, 0.0, 0.0, 0)
    temperature = math.exp(_minimise(lambda log_t: _nll(*fitting, math.exp(log_t)), math.log(LOWEST), math.log(HIGHEST)))
    return TemperatureFit(
        temperature,
        _nll(*checking, 1.0),
        _nll(*checking, temperature),
        _ece(*checking, 1.0),
        _ece(*checking, temperature),
        len(fitting[1]),
    )


def _usable_scores(score: ScoreFunction, examples: Examples, num_items: int, include_seen: bool) -> tuple[Tensor, Tensor]:
    blocks, targets = [], []
    for batch in in_blocks(examples, num_items):
        block = hide_seen(score(batch), batch, include_seen)
        target = torch.from_numpy(batch.targets.astype(np.int64))
        usable = torch.isfinite(block.gather(1, target[:, None])[:, 0])
        blocks.append(block[usable])
        targets.append(target[usable])
    return torch.cat(blocks), torch.cat(targets)


def _blocks(scores: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(targets), 512):
        yield scores[start : start + 512], targets[start : start + 512]


def _nll(scores: Tensor, targets: Tensor, temperature: float) -> float:
    total = 0.0
    for block, target in _blocks(scores, targets):
        scaled = block / temperature
        total += float((scaled.logsumexp(dim=1) - scaled.gather(1, target[:, None])[:, 0]).double().sum())
    return total / len(targets)


def _ece(scores: Tensor, targets: Tensor, temperature: float) -> float:
    stated, came = [], []
    for block, target in _blocks(scores, targets):
        values, items = (block / temperature).softmax(dim=1).topk(min(TOP, block.shape[1]), dim=1)
        stated.append(values.flatten().numpy())
        came.append((items == target[:, None]).flatten().numpy())
    return expected_calibration_error(np.concatenate(stated), np.concatenate(came))


def _minimise(function: Callable[[float], float], low: float, high: float) -> float:
    """Place of the minimum of a function with one valley, by golden sections."""
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = function(left), function(right)
    while high - low > TOLERANCE:
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - GOLDEN * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + GOLDEN * (high - low)
            at_right = function(right)
    return (low + high) / 2.0
