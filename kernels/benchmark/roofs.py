"""How fast this very machine copies and multiplies: what the ops' floors are made of."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch


class Roofs(NamedTuple):
    """Best of a few tries.

    Attributes:
        bytes_per_second: of a large copy, read and written bytes together.
        flop_per_second: of a large matrix product in the dtype of the run.
    """

    bytes_per_second: float
    flop_per_second: float

    def floor_seconds(self, moved_bytes: float, flop: float) -> float:
        """The time that moving or computing takes at least, whichever is longer."""
        return max(moved_bytes / self.bytes_per_second, flop / self.flop_per_second)


# Copy and bf16 product measured once on an H200; the datasheet says 4.8 TB/s and 990 TFLOP/s.
H200 = Roofs(4.3e12, 790e12)


def measured_roofs(device: torch.device, dtype: torch.dtype) -> Roofs:
    """Copy buffers larger than the caches, and multiply square matrices.

    On a CPU many short tries: the best of them is one that other work on the machine did not disturb.
    """
    on_cuda = device.type == "cuda"
    copied = 1 << (30 if on_cuda else 27)
    source = torch.ones(copied // dtype.itemsize, dtype=dtype, device=device)
    destination = torch.zeros_like(source)
    copy_seconds = best_seconds(lambda: destination.copy_(source), device, 20 if on_cuda else 60)
    side = 8192 if on_cuda else 768
    left = torch.randn(side, side, device=device).to(dtype)
    right, product = left.clone(), torch.empty_like(left)
    product_seconds = best_seconds(lambda: torch.mm(left, right, out=product), device, 20 if on_cuda else 100)
    return Roofs(2.0 * copied / copy_seconds, 2.0 * side**3 / product_seconds)


def best_seconds(call: Callable[[], object], device: torch.device, tries: int) -> float:
    """The shortest of so many calls, after two that warm up."""
    call(), call()
    best = float("inf")
    for _ in range(tries):
        if device.type == "cuda":
            begin, end = timing_event(), timing_event()
            begin.record()
            call()
            end.record()
            end.synchronize()
            best = min(best, begin.elapsed_time(end) * 1e-3)
        else:
            started = time.perf_counter()
            call()
            best = min(best, time.perf_counter() - started)
    return best


def timing_event() -> torch.cuda.Event:
    """One end of a measured stretch of a CUDA stream."""
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
