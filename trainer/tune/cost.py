"""What a stage will cost, said before it starts."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from llmgr_core.engine.hybrid_model import HybridModel
from llmgr_core.progress import Reporter
from trainer.tune.model_flops import ModelFlops
from trainer.tune.pace import Pace
from trainer.tune.training_loop import BuildBatch, Places

SAMPLED_BATCHES = 3


def report_cost(
    model: HybridModel, stage: int, steps: list[Places], build: BuildBatch, reporter: Reporter, peak: float
) -> dict[str, Any]:
    """Report what ``measured_cost`` finds."""
    cost = measured_cost(model, steps, build, peak)
    if cost:
        reporter.event(f"stage {stage} will cost", **cost)
    return cost


def measured_cost(model: HybridModel, steps: list[Places], build: BuildBatch, peak: float) -> dict[str, Any]:
    """Tokens, measured tokens a second and minutes of a stage, empty without steps; by ``measured_pace``."""
    if not steps:
        return {}
    pace = measured_pace(model, steps, build, peak)
    total = pace.tokens / SAMPLED_BATCHES * len(steps)
    return {
        "steps": len(steps),
        "examples": int(sum(len(step) for step in steps)),
        "tokens": round(total),
        **pace.figures(),
        "flops_per_token": round(pace.operations / pace.tokens),
        "minutes": round(total * pace.seconds / pace.tokens / 60, 1),
    }


def measured_pace(model: HybridModel, steps: list[Places], build: BuildBatch, peak: float) -> Pace:
    """How fast a stage of at least one step goes; changes neither weights nor gradients.

    A few batches, evenly spread over the lengths, run forward and backward; the first of them only warms up.

    Args:
        peak: operations a second of this machine, of which the measured speed is a share.
    """
    picked = [steps[round(place)] for place in np.linspace(0, len(steps) - 1, SAMPLED_BATCHES + 1)]
    pace, flops = Pace(peak), ModelFlops.of(model.language_model)
    for number, chosen in enumerate(picked):
        batch = build(chosen, np.random.default_rng(0))
        started = time.perf_counter()
        # Reading the value waits for a GPU.
        loss = model(batch).loss
        loss.backward()
        float(loss.detach())
        if number:
            pace.add(batch.tokens, flops.count(batch), time.perf_counter() - started)
        model.zero_grad(set_to_none=True)
    return pace
