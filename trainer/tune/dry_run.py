"""What a tuning would take, from one step of each stage; nothing is trained and nothing stays on the disk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn

from llmgr_core.data import Dataset
from llmgr_core.encoders import Backbone
from llmgr_core.engine.hybrid_model import HybridModel, StageLoss
from llmgr_core.progress import Reporter
from llmgr_core.settings import Settings
from llmgr_core.settings.engine import EngineSettings
from llmgr_core.settings.tune import TuneSettings
from trainer.tune.cost import measured_pace
from trainer.tune.matmul_rate import matmul_rate
from trainer.tune.optimization import Optimization, SingleProcess, choose_trainable, summed
from trainer.tune.peak_memory import peak_memory
from trainer.tune.processes import Processes
from trainer.tune.stage_examples import Work, mixed
from trainer.tune.state_bytes import state_bytes
from trainer.tune.training_loop import parts_of
from trainer.tune.two_stages import TwoStageTuning

# Batches that are built to count their tokens, evenly spread; and those of the longest examples, to find the largest.
COUNTED_BATCHES, LONGEST_BATCHES = 200, 8
# Stands in for text vectors, whose values change no figure here.
VECTOR_WIDTH = 4


@dataclass(frozen=True)
class Layout:
    """Over what the run would be spread.

    Attributes:
        processes: of DeepSpeed; 1 without it.
        deepspeed: its configuration, checked; None without it.
    """

    processes: int = 1
    deepspeed: dict[str, Any] | None = None

    @property
    def zero(self) -> dict[str, Any]:
        found: dict[str, Any] = (self.deepspeed or {}).get("zero_optimization", {})
        return found


class OneShare(SingleProcess):
    """The first process's share of a batch, forward and backward; the update, spread over the processes, is left out."""

    def __init__(self, model: HybridModel, parameters: dict[str, nn.Parameter], settings: TuneSettings, world: int) -> None:
        super().__init__(model, parameters, settings)
        self.world = world

    def step(self, parts: Iterable[tuple[float, Any]], rate_factor: float) -> StageLoss:
        return summed(self.backward(parts))


class FirstOf(Processes):
    """The first of several processes, alone here."""

    def __init__(self, count: int) -> None:
        self._count = count

    def place(self, settings: EngineSettings) -> EngineSettings:
        return settings.model_copy(update={"device": "cuda:0" if torch.cuda.is_available() else "cpu"})

    def optimization(self, model: HybridModel, parameters: dict[str, nn.Parameter], settings: TuneSettings) -> Optimization:
        return OneShare(model, parameters, settings, self._count)


def dry_run(
    dataset: Dataset, backbone: Backbone, settings: Settings, reporter: Reporter, layout: Layout | None = None
) -> dict[str, Any]:
    """Load everything as the run would and measure one step of each stage.

    Tokens are counted on up to 200 batches of a stage, speed is measured on three (``measured_pace``). The step with the most
    tokens is run for its memory: forward, backward and update in one process; of several, the first one's share, forward and
    backward. Not in the minutes: embedding the catalogue, validation, and the figures before and after.

    Raises:
        LlmgrError: what the run itself would refuse.
    """
    layout = layout or Layout()
    processes = Processes() if layout.deepspeed is None else FirstOf(layout.processes)
    with TemporaryDirectory(prefix="llmgr-dry-run-") as directory:
        place = Path(directory)
        tuning = TwoStageTuning(
            dataset, backbone, settings, directory=place, checkpoints=place, reporter=reporter, processes=processes
        )
        model = tuning.model
        device, dtype = model.language_model.device, settings.engine.dtype
        peak = matmul_rate(device, model.language_model.transformer.get_input_embeddings().weight.dtype)
        stages = [_stage(tuning, number, work, layout, peak) for number, work in _stages(tuning) if work.steps]
        return {
            "model": settings.engine.model,
            "dtype": dtype,
            "device": str(device),
            "threads": torch.get_num_threads(),
            "processes": layout.processes,
            "zero_stage": int(layout.zero.get("stage", 0)),
            "total_parameters": sum(one.numel() for one in model.parameters()),
            "language_model_parameters": sum(one.numel() for one in model.language_model.parameters()),
            "matmul_flops_per_second": round(peak),
            "stages": stages,
            "minutes": round(sum(stage["minutes"] for stage in stages), 2),
        }


def _stages(tuning: TwoStageTuning) -> list[tuple[int, Work]]:
    """Number and work of each stage, in their order; steps of both at once have what learns in stage 2."""
    vectors = np.random.default_rng(0).standard_normal((tuning.dataset.num_items, VECTOR_WIDTH), dtype=np.float32)
    items = tuning.examples.items_to_learn(vectors).work
    prefixes = tuning.examples.prefixes_to_learn()
    if tuning.tune.order == "joint":
        return [(2, mixed(items, prefixes, tuning.settings.seed))]
    stages = [(1, items), (2, prefixes)]
    return stages[::-1] if tuning.tune.order == "swapped" else stages


def _stage(tuning: TwoStageTuning, stage: int, work: Work, layout: Layout, peak: float) -> dict[str, Any]:
    model, steps, settings = tuning.model, work.steps, tuning.tune
    parameters = choose_trainable(model, stage)
    tuning.reporter.event("measuring", stage=stage, steps=len(steps))
    spread = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), COUNTED_BATCHES)).round().astype(int))
    counted = [work.build(steps[place], np.random.default_rng(0)) for place in spread]
    lengths = np.concatenate([batch.prompts.mask.sum(dim=1).cpu().numpy() for batch in counted])
    padded = sum(batch.prompts.tokens for batch in counted)
    tokens = sum(batch.tokens for batch in counted) / len(counted) * len(steps)
    longest = sorted(range(len(steps)), key=lambda place: -int(work.lengths[steps[place]].max()))[:LONGEST_BATCHES]
    largest = max(longest, key=lambda place: work.build(steps[place], np.random.default_rng(0)).tokens)
    pace = measured_pace(model, steps, work.build, peak)
    optimization = tuning.processes.optimization(model, parameters, settings)
    used: list[Any] = []

    def step() -> None:
        draw = np.random.default_rng([tuning.settings.seed, stage, largest])
        parts = parts_of(steps[largest], work.build, draw, optimization, settings=settings, used=used)
        float(optimization.step(parts, 0.0).loss)

    memory = peak_memory(model.language_model.device, step)
    optimization.finish()
    model.zero_grad(set_to_none=True)
    # Processes on a CPU share its cores; each GPU has its own process.
    at_once = layout.processes if model.language_model.device.type == "cuda" else 1
    return {
        "stage": stage,
        "trainable_parameters": sum(one.numel() for one in parameters.values()),
        "bytes": state_bytes(model, parameters, layout.processes, layout.zero),
        "steps": len(steps),
        "examples": int(sum(len(chosen) for chosen in steps)),
        "mean_prompt_tokens": round(float(lengths.mean()), 1),
        "longest_prompt_tokens": int(max(lengths.max(), *(int(one.prompts.mask.sum(dim=1).max()) for one in used))),
        "padding": round(1 - float(lengths.sum()) / padded, 4),
        "counted_steps": len(counted),
        "tokens": round(tokens),
        **pace.figures(at_once),
        "flops_per_token": round(pace.operations / pace.tokens),
        "minutes": round(tokens * pace.seconds / pace.tokens / at_once / 60, 2),
        "largest_step_tokens": sum(one.tokens for one in used),
        "peak_memory_bytes": memory,
    }
