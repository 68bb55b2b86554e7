"""How fast this machine multiplies matrices: the peak that a training is measured by."""

from __future__ import annotations

import time

import torch

FIRST_SIZE, LARGEST_SIZE = 256, 8192
# A product that takes longer than this is not made larger: a short one may find the core its own though others want it too.
LONG_SECONDS = 0.002
TRIES = 3
SECONDS = 0.3


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second (2 n^3 a product) of the fastest square matrix product, on this device, with torch's threads as set.

    Measured, not read from a data sheet, so that it holds for any CPU, any number of threads and any share of a machine. Takes
    about SECONDS and leaves torch's random state as it was.
    """
    draw = torch.Generator(device).manual_seed(0)
    size = FIRST_SIZE
    while True:
        left, right = (torch.randn(size, size, generator=draw, device=device).to(dtype) for _ in range(2))
        _product_seconds(left, right)  # the first one of a size also sets up
        best = min(_product_seconds(left, right) for _ in range(TRIES))
        if best > LONG_SECONDS or size >= LARGEST_SIZE:
            break
        size *= 2
    until = time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        best = min(best, _product_seconds(left, right))
    return 2.0 * size**3 / best


def _product_seconds(left: torch.Tensor, right: torch.Tensor) -> float:
    if left.device.type == "cuda":
        torch.cuda.synchronize(left.device)
    started = time.perf_counter()
    product = left @ right
    # Reading a value waits for a GPU.
    float(product[0, 0])
    return max(time.perf_counter() - started, 1e-9)
