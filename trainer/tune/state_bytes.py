"""What weights, gradients and optimizer take, by arithmetic; activations are not in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from llmgr_core.engine.hybrid_model import HybridModel
from trainer.tune.optimization import MOMENTS

# DeepSpeed's own default, elements.
REDUCE_BUCKET_SIZE = 500_000_000


def state_bytes(
    model: HybridModel, parameters: Mapping[str, nn.Parameter], processes: int, zero: Mapping[str, Any]
) -> dict[str, int]:
    """Bytes of one process.

    With Psi bytes of what learns (fp32) and P processes, ZeRO (Rajbhandari et al., 2020) leaves on each of them

        stage 0: 1 Psi gradients, 2 Psi moments         stage 1: Psi, 2 Psi / P         stage 2: Psi / P, 2 Psi / P

    and DeepSpeed adds from stage 1 on a copy of its part of the weights, Psi / P, and the buckets that gradients are sent in.

    Args:
        parameters: what learns.
        zero: DeepSpeed's ``zero_optimization``; empty without DeepSpeed.

    Returns:
        ``weights`` (with the tables that never learn), ``gradients``, ``moments``, ``weight_copies``, ``buckets``.
    """
    learns, stage = _bytes(parameters.values()), int(zero.get("stage", 0))
    part = -(-learns // processes)
    buckets = 0
    if stage and zero.get("contiguous_gradients", True):
        buckets = 4 * int(zero.get("reduce_bucket_size", REDUCE_BUCKET_SIZE)) * (2 if zero.get("overlap_comm") else 1)
    return {
        "weights": _bytes(model.parameters()) + _bytes(model.buffers()),
        "gradients": part if stage >= 2 else learns,
        "moments": len(MOMENTS) * (part if stage else learns),
        "weight_copies": part if stage else 0,
        "buckets": buckets,
    }


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(one.numel() * one.element_size() for one in tensors)
