"""A training state in one safetensors file, replaced atomically."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from llmgr_core.errors import ArtefactError

CHECKPOINT_NAME = "training.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """What training needs to go on as if it had never stopped.

    Attributes:
        model: state of the model, by name.
        best: state of the best model so far, by name; empty before the first validation.
        optimizer: moments and step counts, by "parameter name/key".
        random: state of torch's CPU generator, and of the CUDA device's where one is in use.
        progress: plain numbers (loader position, step, best metric, length of the log, ...).
    """

    model: Mapping[str, Tensor]
    best: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    random: Mapping[str, Tensor]
    progress: Mapping[str, Any]

    def write(self, directory: Path) -> None:
        """Write, flush to the disk, then take the place of the previous checkpoint."""
        tensors = {
            f"{group}:{name}": tensor.detach().cpu().contiguous().clone()
            for group in ("model", "best", "optimizer", "random")
            for name, tensor in getattr(self, group).items()
        }
        path = directory / CHECKPOINT_NAME
        temporary = path.with_suffix(".new")
        save_file(tensors, temporary, metadata={"progress": json.dumps(dict(self.progress))})
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)

    @classmethod
    def read(cls, directory: Path) -> Checkpoint | None:
        """The checkpoint of a directory, None where there is none.

        Raises:
            ArtefactError: there is one, but it cannot be read.
        """
        path = directory / CHECKPOINT_NAME
        if not path.is_file():
            return None
        groups: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimizer": {}, "random": {}}
        try:
            with safe_open(path, framework="pt") as stream:
                progress = json.loads((stream.metadata() or {})["progress"])
                for key in stream.keys():  # noqa: SIM118
                    group, _, name = key.partition(":")
                    groups[group][name] = stream.get_tensor(key)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise ArtefactError(f"{path} cannot be read: {error}", "delete it, or use --force, to start afresh") from None
        return cls(**groups, progress=progress)


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state by parameter name; only parameters that have been stepped have one."""
    return {
        f"{name}/{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what ``optimizer_tensors`` took."""
    parameters = dict(model.named_parameters())
    for path, value in tensors.items():
        name, _, key = path.rpartition("/")
        parameter = parameters[name]
        # Step counts stay where the optimizer keeps them: on the CPU unless it is a fused CUDA one.
        like_parameter = value.shape == parameter.shape
        optimizer.state[parameter][key] = value.to(parameter.device) if like_parameter else value.clone()


def random_tensors(device: torch.device) -> dict[str, Tensor]:
    """State of the generators that dropout draws from."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_random(device: torch.device, tensors: Mapping[str, Tensor]) -> None:
    """Put back what ``random_tensors`` took."""
    torch.set_rng_state(tensors["cpu"])
    if device.type == "cuda" and "cuda" in tensors:
        torch.cuda.set_rng_state(tensors["cuda"], device)
