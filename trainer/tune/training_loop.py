"""The steps of one stage."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from llmgr_core.errors import LlmgrError
from llmgr_core.progress import Reporter
from llmgr_core.settings.tune import TuneSettings
from trainer.catalogue_training.log import TrainingLog
from trainer.tune.early_stopping import EarlyStopping
from trainer.tune.model_flops import ModelFlops
from trainer.tune.optimization import Optimization
from trainer.tune.pace import Pace
from trainer.tune.scalars import Scalars
from trainer.tune.schedule import batch_order, rate_factor, step_seed

Places = npt.NDArray[np.int64]
BuildBatch = Callable[[Places, np.random.Generator], Any]
SMOOTHING = 0.95


def steps_of(lengths: Places, epochs: int, settings: TuneSettings, seed: int, stage: int) -> list[Places]:
    """The examples of every step of a stage, in order."""
    steps = []
    for epoch in range(epochs):
        steps += batch_order(lengths, settings.batch_size, seed, stage, epoch)
    return steps


def train_stage(
    stage: int,
    steps: list[Places],
    build: BuildBatch,
    optimization: Optimization,
    *,
    settings: TuneSettings,
    seed: int,
    first_step: int,
    log: TrainingLog | None,
    checkpoint: Callable[[int], None],
    reporter: Reporter,
    pace: Pace,
    flops: ModelFlops,
    stopping: EarlyStopping | None = None,
    scalars: Scalars | None = None,
) -> int:
    """Run the steps from ``first_step`` on; returns the number of steps after which the stage ended.

    Args:
        build: makes a batch of these examples; what it draws comes from the generator it is given.
        log: None on all processes but the first.
        checkpoint: called with the number of steps done, every ``settings.checkpoint_steps``, on every process.
        pace, flops: count what the steps take.
        stopping: validates in between; None never does.
        scalars: curves of what the log holds, with rates and pace.

    Raises:
        LlmgrError: the loss is NaN or infinite.
    """

    def validate(done: int) -> None:
        if stopping is not None and stopping.due(done, len(steps)):
            figures = stopping.validate(done)
            reporter.event("validated", stage=stage, steps=done, **{key: round(value, 4) for key, value in figures.items()})
            if log is not None:
                log.write(stage=stage, steps=done, **{key: round(value, 6) for key, value in figures.items()})
            if scalars is not None:
                scalars.write(done, figures, "validation_")

    mean_loss, ended = math.nan, len(steps)
    if scalars is not None:
        scalars.start(stage, first_step)
    with reporter.bar(f"stage {stage}", len(steps)) as advance:
        if first_step:
            advance(first_step)
        else:
            validate(0)
        for step in range(first_step, len(steps)):
            chosen = steps[step]
            # Only the last batch of an epoch can be too small to give each process each part.
            if len(chosen) >= optimization.world * settings.accumulate:
                started = time.perf_counter()
                torch.manual_seed(step_seed(seed, stage, step, optimization.rank))
                used: list[Any] = []
                parts = parts_of(
                    chosen, build, np.random.default_rng([seed, stage, step]), optimization, settings=settings, used=used
                )
                factor = rate_factor(step, len(steps), settings.warmup_share)
                result = optimization.step(parts, factor)
                loss = float(result.loss)
                if not math.isfinite(loss):
                    raise LlmgrError(
                        f"stage {stage}, step {step}: the loss is {loss}",
                        "lower tune.learning_rate or tune.bridge_learning_rate",
                    )
                seconds = time.perf_counter() - started
                pace.add(sum(batch.tokens for batch in used), sum(map(flops.count, used)), seconds)
                mean_loss = loss if math.isnan(mean_loss) else SMOOTHING * mean_loss + (1 - SMOOTHING) * loss
                figures = {"loss": loss, "prompt_loss": float(result.prompt_loss), "item_loss": float(result.item_loss)}
                if stage == 1:
                    figures["correct"] = float(result.correct)
                if scalars is not None:
                    rate = {"rate": factor, "learning_rate": factor * settings.learning_rate}
                    scalars.write(step + 1, {**figures, **rate, **pace.figures(optimization.world)})
                if log is not None:
                    rounded = {key: round(value, 6) for key, value in figures.items()}
                    log.write(stage=stage, step=step, rate=round(factor, 6), **rounded)
            validate(step + 1)
            if stopping is not None and stopping.stop:
                ended = step + 1
                break
            if (step + 1) % settings.checkpoint_steps == 0 and step + 1 < len(steps):
                checkpoint(step + 1)
            advance(1, loss=round(mean_loss, 4), **pace.figures(optimization.world))
    if scalars is not None:
        scalars.finish()
    return ended


def parts_of(
    chosen: Places,
    build: BuildBatch,
    rng: np.random.Generator,
    optimization: Optimization,
    *,
    settings: TuneSettings,
    used: list[Any],
) -> Iterator[tuple[float, Any]]:
    """This process's share of a batch, in ``accumulate`` parts, each with its share of the batch's mean."""
    mine = chosen[optimization.rank :: optimization.world]
    # One generator for all processes would give each the same draws for other items; the rank keeps them apart.
    own = np.random.default_rng([int(rng.integers(2**31)), optimization.rank])
    for part in np.array_split(mine, settings.accumulate):
        if len(part):
            batch = build(part, own)
            used.append(batch)
            yield len(part) / len(chosen), batch
