"""How the gated layer's kernels are launched: block sizes by dtype and dimension, nothing by the size of the batch."""

from __future__ import annotations

from typing import Any

import torch
import triton.language as tl

from kernels.session_tiles import TILE_NODES

# Inner dimension of one step of a product: the tensor cores' least for 16-bit numbers.
STEP = 16


def padded_dimension(dimension: int, dtype: torch.dtype) -> int:
    """16, 32, 64 or 128: each compiled and checked; a part with bounds inside would need registers that are not there.

    float32 has no 32: there its backward pass spills a few bytes on sm_80, where 64 does not.
    """
    padded: int = max(16, 1 << (dimension - 1).bit_length())
    return 64 if padded == 32 and dtype == torch.float32 else padded


def constants(dimension: int, dtype: torch.dtype) -> dict[str, Any]:
    """Compile-time arguments that all kernels of the layer share, for a padded dimension.

    A part of COLUMNS outputs takes all its inputs at once. 16 keep fp32's three tf32 products within the registers; with 32,
    three programs of the others share a multiprocessor, which is worth the means being formed twice at d = 64.
    """
    return {
        "D": dimension,
        "TILE": TILE_NODES,
        "COLUMNS": 16 if dtype in (torch.float32, torch.float64) else min(32, dimension),
        "ACC": tl.float64 if dtype == torch.float64 else tl.float32,
        "PRECISION": "tf32x3" if dtype == torch.float32 else "tf32",
    }


def product_constants(dimension: int, dtype: torch.dtype) -> dict[str, Any]:
    """The same for a kernel that only multiplies, with its number of warps: there is room for wider parts."""
    columns = min(32, dimension)
    return {**constants(dimension, dtype), "COLUMNS": columns, "num_warps": 4 if columns == 32 else 8}
