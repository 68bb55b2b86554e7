"""Optimizer steps under DeepSpeed ZeRO-1 and ZeRO-2, behind the same interface as in one process."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llmgr_core.engine.hybrid_model import HybridModel, StageLoss
from llmgr_core.errors import SettingsError
from llmgr_core.settings.engine import EngineSettings
from llmgr_core.settings.tune import TuneSettings
from trainer.tune.optimization import BETAS, MOMENTS, optimizer_groups, summed
from trainer.tune.processes import Processes

DECIDED_HERE = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "optimizer",
    "scheduler",
)
TABLES = ("bf16", "fp16", "zero_optimization")


def checked_config(config: Any) -> dict[str, Any]:
    """A DeepSpeed configuration, as its JSON file says it, that fits this trainer.

    Raises:
        SettingsError: it is no such configuration, sets what sections [tune] and [engine] decide, or asks for ZeRO-3.
    """
    example = "configs/deepspeed-zero2.json is one that works"
    if not isinstance(config, dict):
        raise SettingsError("the DeepSpeed configuration is no JSON object", example)
    for key in TABLES:
        if not isinstance(config.get(key, {}), dict):
            raise SettingsError(
                f"the DeepSpeed configuration sets {key} to {config[key]!r}, which is no table of keys", example
            )
    for key in DECIDED_HERE:
        if key in config and config[key] != "auto":
            raise SettingsError(f"the DeepSpeed configuration sets {key}", "leave it out: section [tune] decides it")
    for key in ("bf16", "fp16"):
        if config.get(key, {}).get("enabled"):
            raise SettingsError(
                f"the DeepSpeed configuration enables {key}",
                "leave it out and set engine.dtype=bf16: the frozen model is then bf16, and what learns stays fp32",
            )
    stage = config.get("zero_optimization", {}).get("stage", 0)
    if stage not in (0, 1, 2):
        raise SettingsError(
            f"ZeRO stage {stage} is not supported", "take stage 1 or 2: what learns is small, the rest is frozen"
        )
    return {key: value for key, value in config.items() if key not in DECIDED_HERE}


class ZeroOptimization:
    """AdamW whose state, and with ZeRO-2 whose gradients, are spread over the processes."""

    def __init__(
        self, model: HybridModel, parameters: dict[str, nn.Parameter], settings: TuneSettings, config: dict[str, Any]
    ) -> None:
        import deepspeed

        self.rank, self.world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self._parameters, self._parts = parameters, settings.accumulate
        # DeepSpeed sends parameters to the other processes as bytes, which a tensor without dimensions has no view of.
        self._scalars = [parameter for parameter in model.parameters() if parameter.ndim == 0]
        for parameter in self._scalars:
            parameter.data = parameter.data.reshape(1)
        groups = optimizer_groups(parameters, settings)
        self._peaks = [group.pop("peak") for group in groups]
        micro_batch = max(settings.batch_size // (self.world * self._parts), 1)
        self._engine, *_ = deepspeed.initialize(
            model=model,
            model_parameters=list(parameters.values()),
            # torch's AdamW: DeepSpeed's own would have to be compiled on this machine.
            optimizer=torch.optim.AdamW(groups, betas=BETAS),
            config={
                **config,
                "train_micro_batch_size_per_gpu": micro_batch,
                "gradient_accumulation_steps": self._parts,
                "gradient_clipping": settings.clip_norm,
            },
        )

    def step(self, parts: Iterable[tuple[float, Any]], rate_factor: float) -> StageLoss:
        for group, peak in zip(self._engine.optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * rate_factor
        losses = []
        for weight, batch in parts:
            loss = self._engine(batch)
            # DeepSpeed takes the mean over parts and processes; the weights already make it a sum.
            self._engine.backward(loss.loss * (weight * self._parts * self.world))
            self._engine.step()
            losses.append((weight, loss))
        mine = summed(losses)
        together = torch.stack([mine.loss, mine.prompt_loss, mine.item_loss, mine.correct])
        torch.distributed.all_reduce(together)
        return StageLoss(*together.unbind())

    def state(self) -> dict[str, torch.Tensor]:
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        self._name_moments()
        tensors: dict[str, torch.Tensor] = {}
        for name, parameter in self._parameters.items():
            tensors[f"weight.{name}"] = safe_get_full_fp32_param(parameter)
            tensors |= {f"{moment}.{name}": safe_get_full_optimizer_state(parameter, moment) for moment in MOMENTS}
        return tensors

    def load_state(self, tensors: Mapping[str, torch.Tensor], steps: int) -> None:
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        zero = self._engine.optimizer
        for flat in zero.single_partition_of_fp32_groups:
            empty = {moment: torch.zeros_like(flat) for moment in MOMENTS}
            zero.optimizer.state[flat] = {"step": torch.tensor(float(steps)), **empty}
        self._name_moments()
        for name, parameter in self._parameters.items():
            # What took no part in any step has no moments.
            values = {
                key: tensors[f"{key}.{name}"].reshape(parameter.shape).to(parameter.device)
                for key in ("weight", *MOMENTS)
                if f"{key}.{name}" in tensors
            }
            weight = values.pop("weight")
            parameter.data.copy_(weight)
            safe_set_full_fp32_param(parameter, weight)
            for moment, value in values.items():
                safe_set_full_optimizer_state(parameter, value, moment)

    def _name_moments(self) -> None:
        """Tie each parameter to its part of the flat moments.

        DeepSpeed does so itself after the first of several parameter groups has stepped, when the others have none yet.
        """
        from deepspeed.utils import lazy_init_hp_params_optimizer_state

        zero = self._engine.optimizer
        for group, flat in zip(zero.bit16_groups, zero.single_partition_of_fp32_groups, strict=True):
            lazy_init_hp_params_optimizer_state(group, flat, zero.optimizer.state)

    def finish(self) -> None:
        """Take DeepSpeed's hooks off the model, so that the next stage can set its own."""
        self._engine.destroy()
        for parameter in self._scalars:
            parameter.data = parameter.data.reshape(())
            parameter.grad = None


class ZeroProcesses(Processes):
    """The processes that DeepSpeed's launcher started; one of them per accelerator, or several on a CPU.

    Args:
        config: DeepSpeed's configuration, checked.
        rendezvous: a file of this run, by which its processes find each other.
    """

    alone = False

    def __init__(self, config: dict[str, Any], rendezvous: Path) -> None:
        import deepspeed

        on_gpu = torch.cuda.is_available()
        deepspeed.init_distributed(
            dist_backend="nccl" if on_gpu else "gloo",
            init_method=f"file://{rendezvous}",
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
        )
        self._config, self._on_gpu = config, on_gpu
        self.first = torch.distributed.get_rank() == 0

    def place(self, settings: EngineSettings) -> EngineSettings:
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if self._on_gpu else "cpu"
        return settings.model_copy(update={"device": device})

    def optimization(self, model: HybridModel, parameters: dict[str, nn.Parameter], settings: TuneSettings) -> ZeroOptimization:
        return ZeroOptimization(model, parameters, settings, self._config)

    def as_first(self, figures: dict[str, float]) -> dict[str, float]:
        device = self.place(EngineSettings()).device
        values = torch.tensor(list(figures.values()), dtype=torch.float64, device=device)
        torch.distributed.broadcast(values, src=0)
        return dict(zip(figures, values.tolist(), strict=True))

    def barrier(self) -> None:
        torch.distributed.barrier()
