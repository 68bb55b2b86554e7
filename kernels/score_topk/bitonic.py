"""The largest keys of a block, in order, by bitonic merges in registers.

Triton's own ``topk`` finds each partner by an exclusive-or reduction, which its interpreter runs element by element in Python.
The partner as a difference of sums compiles to the same exchange, and the interpreter has it at NumPy's speed.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.constexpr_function  # type: ignore[untyped-decorator]
def _log2(size: int) -> int:
    return size.bit_length() - 1


@triton.jit  # type: ignore[untyped-decorator]
def _merged(cube: tl.tensor, STEPS: tl.constexpr, FALLING: tl.constexpr, ALTERNATING: tl.constexpr) -> tl.tensor:
    """Put each run of 2^STEPS keys, which first rises and then falls or the other way round, in order.

    Args:
        cube: int64 [2, 2, ..., 2]; runs lie along the last STEPS axes.
        STEPS: logarithm of a run's length.
        FALLING: largest first.
        ALTERNATING: every second run the other way round, so that two neighbours make a run for the next merge.
    """
    AXES: tl.constexpr = len(cube.shape)
    two = tl.arange(0, 2)
    swapped = FALLING
    if ALTERNATING:
        swapped = tl.reshape(two, [1] * (AXES - 1 - STEPS) + [2] + [1] * STEPS) == (0 if FALLING else 1)
    for step in tl.static_range(STEPS):
        partner = tl.sum(cube, axis=AXES - STEPS + step, keep_dims=True) - cube
        second = tl.reshape(two, [1] * (AXES - STEPS + step) + [2] + [1] * (STEPS - 1 - step)) == 1
        cube = tl.where(second != swapped, tl.maximum(cube, partner), tl.minimum(cube, partner))
    return cube


@triton.jit  # type: ignore[untyped-decorator]
def largest(keys: tl.tensor, KEEP: tl.constexpr) -> tl.tensor:
    """The KEEP largest of int64 [N], falling, int64 [KEEP]; N and KEEP are powers of two, 2 <= KEEP <= N."""
    LOG_N: tl.constexpr = _log2(keys.numel)
    LOG_KEEP: tl.constexpr = _log2(KEEP)
    cube = tl.reshape(keys, [2] * LOG_N)
    for length in tl.static_range(1, LOG_KEEP):
        cube = _merged(cube, length, True, True)
    cube = _merged(cube, LOG_KEEP, True, LOG_KEEP < LOG_N)
    for halving in tl.static_range(LOG_N - LOG_KEEP):
        # Of a falling run and a rising one, the larger of each pair: the KEEP largest of both, a run that can be merged.
        cube = tl.max(cube, axis=LOG_N - 1 - LOG_KEEP - halving)
        cube = _merged(cube, LOG_KEEP, True, halving + 1 < LOG_N - LOG_KEEP)
    return tl.reshape(cube, [KEEP])


@triton.jit  # type: ignore[untyped-decorator]
def keep_best(best: tl.tensor, keys: tl.tensor, KEEP: tl.constexpr) -> tl.tensor:
    """The KEEP largest of ``best`` [KEEP] (rising) and ``keys`` (any order, at least KEEP of them), rising."""
    cube = tl.reshape(tl.maximum(best, largest(keys, KEEP)), [2] * _log2(KEEP))
    return tl.reshape(_merged(cube, _log2(KEEP), False, False), [KEEP])


@triton.jit  # type: ignore[untyped-decorator]
def turned_round(rising: tl.tensor, KEEP: tl.constexpr) -> tl.tensor:
    """The same keys, falling."""
    cube = tl.reshape(rising, [2] * _log2(KEEP))
    return tl.reshape(_merged(cube, _log2(KEEP), True, False), [KEEP])
