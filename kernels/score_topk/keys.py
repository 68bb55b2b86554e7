"""Scores and items in one sortable 64-bit word: the order of a ranking is the order of its keys."""

from __future__ import annotations

import triton
import triton.language as tl

# Smaller than every key: what must not be ranked.
NOTHING = tl.constexpr(-(1 << 63))


@triton.jit  # type: ignore[untyped-decorator]
def as_keys(scores: tl.tensor, items: tl.tensor) -> tl.tensor:
    """int64 keys that rise with the score and, at equal scores, fall with the item; NOTHING for -inf and NaN.

    Args:
        scores: fp32 block.
        items: integer block of the same shape, below 2^32.
    """
    # Both zeros are one score.
    scores = tl.where(scores == 0.0, 0.0, scores)
    bits = scores.to(tl.int32, bitcast=True)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    keys = (ordered.to(tl.int64) << 32) | (4294967295 - items.to(tl.int64))
    return tl.where(scores > float("-inf"), keys, NOTHING)


@triton.jit  # type: ignore[untyped-decorator]
def items_of(keys: tl.tensor) -> tl.tensor:
    """int64 items of keys; meaningless for NOTHING."""
    return 4294967295 - (keys & 4294967295)


@triton.jit  # type: ignore[untyped-decorator]
def scores_of(keys: tl.tensor) -> tl.tensor:
    """fp32 scores of keys; meaningless for NOTHING."""
    ordered = (keys >> 32).to(tl.int32)
    return (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)
