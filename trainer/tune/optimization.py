"""One optimizer step, in one process or under DeepSpeed, and the optimizer's state as plain tensors by parameter name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import nn

from llmgr_core.engine.hybrid_model import HybridModel, StageLoss
from llmgr_core.settings.tune import TuneSettings

MOMENTS = ("exp_avg", "exp_avg_sq")
BETAS = (0.9, 0.999)


class Optimization(Protocol):
    """What the training loop needs of an optimizer."""

    rank: int
    world: int

    def step(self, parts: Iterable[tuple[float, Any]], rate_factor: float) -> StageLoss:
        """Gradients of all parts (weight, batch), one update at ``rate_factor`` times the peak rates; the summed losses."""
        ...

    def state(self) -> dict[str, torch.Tensor]:
        """Weights and moments of everything that learns; the same on every process."""
        ...

    def load_state(self, tensors: Mapping[str, torch.Tensor], steps: int) -> None:
        """Take over what ``state`` gave after ``steps`` steps."""
        ...

    def finish(self) -> None:
        """Leave the model with its weights and nothing else."""
        ...


def choose_trainable(model: HybridModel, stage: int) -> dict[str, nn.Parameter]:
    """Freeze everything but what learns in a stage; those parameters by name.

    Stage 1: adapter, W_p, readout and head. Stage 2: the whole bridge too, and of the backbone what ``thaw`` says.
    """
    settings = model.settings
    prefixes = ["bridge.projection", "bridge.first_layers", "bridge.readout", "bridge.head", "bridge.log_"]
    if stage == 2:
        prefixes = ["bridge."]
        prefixes += ["backbone.encoder."] if settings.thaw != "frozen" else []
        prefixes += ["backbone.item_table"] if settings.thaw == "gnn+ids" else []
    chosen = {}
    for name, parameter in model.named_parameters():
        # An adapter that never learns adds nothing: its B stays 0.
        learns = ("lora_" in name and settings.lora_rank > 0) or name.startswith(tuple(prefixes))
        # With no z_s beside it the gate would only rescale what is normalised anyway.
        learns = learns and not (name == "bridge.graph_gate" and not settings.graph_residual)
        learns = learns and not (name == "bridge.projection" and settings.projection == "random-frozen")
        parameter.requires_grad_(learns)
        if learns:
            chosen[name] = parameter
    model.train()
    model.backbone.train(stage == 2 and settings.thaw != "frozen")
    return chosen


def optimizer_groups(parameters: dict[str, nn.Parameter], settings: TuneSettings) -> list[dict[str, Any]]:
    """Parameter groups of AdamW: a rate each for adapter, bridge and backbone; no weight decay on vectors and scalars."""
    rates = {"language_model": settings.learning_rate, "bridge": settings.bridge_learning_rate}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        rate = rates.get(name.split(".", 1)[0], settings.gnn_learning_rate)
        decay = settings.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": members, "lr": rate, "peak": rate, "weight_decay": decay} for (rate, decay), members in groups.items()]


def summed(losses: list[tuple[float, StageLoss]]) -> StageLoss:
    """Weighted sum of the losses of the parts of one batch, without gradients."""

    def total(pick: Callable[[StageLoss], torch.Tensor]) -> torch.Tensor:
        return torch.stack([weight * pick(loss).detach().float() for weight, loss in losses]).sum()

    return StageLoss(
        total(lambda one: one.loss),
        total(lambda one: one.prompt_loss),
        total(lambda one: one.item_loss),
        total(lambda one: one.correct),
    )


class SingleProcess:
    """AdamW in this process."""

    rank, world = 0, 1

    def __init__(self, model: HybridModel, parameters: dict[str, nn.Parameter], settings: TuneSettings) -> None:
        self._model, self._parameters, self._clip = model, parameters, settings.clip_norm
        self._mixed = settings.order == "joint"
        self._optimizer = torch.optim.AdamW(optimizer_groups(parameters, settings), betas=BETAS)

    def backward(self, parts: Iterable[tuple[float, Any]]) -> list[tuple[float, StageLoss]]:
        """Add the gradients of all parts (weight, batch); the losses by their weights."""
        losses = []
        for weight, batch in parts:
            loss = self._model(batch)
            (weight * loss.loss).backward()
            losses.append((weight, loss))
        return losses

    def step(self, parts: Iterable[tuple[float, Any]], rate_factor: float) -> StageLoss:
        losses = self.backward(parts)
        if self._mixed:
            # A batch of one stage leaves out what only the other uses; a resumed run counts the same steps for all.
            for parameter in self._parameters.values():
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
        torch.nn.utils.clip_grad_norm_(self._parameters.values(), self._clip)
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak"] * rate_factor
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return summed(losses)

    def state(self) -> dict[str, torch.Tensor]:
        tensors: dict[str, torch.Tensor] = {}
        for name, parameter in self._parameters.items():
            tensors[f"weight.{name}"] = parameter
            moments = self._optimizer.state.get(parameter, {})
            tensors |= {f"{moment}.{name}": moments[moment] for moment in MOMENTS if moment in moments}
        return tensors

    def load_state(self, tensors: Mapping[str, torch.Tensor], steps: int) -> None:
        for name, parameter in self._parameters.items():
            # A run under DeepSpeed keeps scalars as tensors of one number.
            found = {
                key: tensors[f"{key}.{name}"].reshape(parameter.shape).to(parameter.device, copy=True)
                for key in ("weight", *MOMENTS)
                if f"{key}.{name}" in tensors
            }
            parameter.data.copy_(found.pop("weight"))
            if len(found) == len(MOMENTS):
                self._optimizer.state[parameter] = {"step": torch.tensor(float(steps)), **found}

    def finish(self) -> None:
        self._optimizer.state.clear()
