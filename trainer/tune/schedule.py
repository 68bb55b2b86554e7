"""Which examples a step takes, and at what rate it learns: functions of the step's number, so that nothing needs storing."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

BATCHES_SORTED_TOGETHER = 50


def batch_order(
    lengths: npt.NDArray[np.int64], batch_size: int, seed: int, stage: int, epoch: int
) -> list[npt.NDArray[np.int64]]:
    """Shuffled batches of examples of like length.

    A random order is cut into groups of 50 batches, each group is sorted by length and cut into batches, and the batches are
    shuffled: little padding, and still another mixture in each epoch.

    Returns:
        Places of the examples, int64, a batch each; every example once an epoch.
    """
    rng = np.random.default_rng([seed, stage, epoch])
    order = rng.permutation(len(lengths))
    batches = []
    for start in range(0, len(order), batch_size * BATCHES_SORTED_TOGETHER):
        group = order[start : start + batch_size * BATCHES_SORTED_TOGETHER]
        group = group[np.argsort(lengths[group], kind="stable")]
        batches += [group[first : first + batch_size] for first in range(0, len(group), batch_size)]
    return [batches[place] for place in rng.permutation(len(batches))]


def rate_factor(step: int, steps: int, warmup_share: float) -> float:
    """Share of the peak rate at a step in 0..steps-1: a linear rise, then half a cosine down to zero."""
    warmup = round(steps * warmup_share)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


def step_seed(seed: int, stage: int, step: int, rank: int = 0) -> int:
    """Seed of everything random within one step (dropout, candidates), so that a resumed run repeats it exactly."""
    return int(np.random.SeedSequence([seed, stage, step, rank]).generate_state(1)[0])
