"""Checkpoints of a tuning run: one safetensors file with weights, optimizer moments and position; no pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

NAME = "tuning.safetensors"


@dataclass(frozen=True)
class Position:
    """Where a run stands.

    Attributes:
        stage: 1 or 2.
        step: steps of that stage already done.
        log_bytes: length of the training log then.
        measured: figures measured so far, which a resumed run cannot measure again.
        validation: where early stopping stands, empty without it.
    """

    stage: int
    step: int
    log_bytes: int
    measured: dict[str, float]
    validation: dict[str, float] = field(default_factory=dict)


def write_checkpoint(directory: Path, position: Position, tensors: Mapping[str, torch.Tensor]) -> None:
    """Replace the checkpoint in one step: a kill at any moment leaves the old one or the new one."""
    temporary = directory / (NAME + ".writing")
    stored = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(stored, temporary, metadata={"position": json.dumps(asdict(position))})
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    temporary.replace(directory / NAME)


def read_checkpoint(directory: Path) -> tuple[Position, dict[str, torch.Tensor]] | None:
    """The last checkpoint, or None where there is none that can be read."""
    path = directory / NAME
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as stream:
            position = Position(**json.loads(stream.metadata()["position"]))
            return position, {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None
