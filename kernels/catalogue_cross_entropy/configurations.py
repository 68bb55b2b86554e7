"""How the kernels of this op are launched, for the compiler gate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from kernels.catalogue_cross_entropy import tile_sizes
from kernels.catalogue_cross_entropy.backward import (
    catalogue_session_gradient_kernel,
    catalogue_session_merge_kernel,
    catalogue_table_gradient_kernel,
    lift,
)
from kernels.catalogue_cross_entropy.forward import (
    ROWS,
    catalogue_loss_forward_kernel,
    catalogue_softmax_forward_kernel,
    input_precision,
)
from kernels.compilation import Configuration

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
TILED: dict[str, tuple[Any, dict[int, tuple[tile_sizes.Tiles, tile_sizes.Tiles]]]] = {
    "softmax_forward": (catalogue_softmax_forward_kernel, tile_sizes.FORWARD),
    "session_gradient": (catalogue_session_gradient_kernel, tile_sizes.SESSION_GRADIENT),
    "table_gradient": (catalogue_table_gradient_kernel, tile_sizes.TABLE_GRADIENT),
}
BY_ROWS: dict[str, Any] = {
    "loss_forward": catalogue_loss_forward_kernel,
    "session_merge": catalogue_session_merge_kernel,
}


def _types(kernel: Any, dtype: str) -> dict[str, str]:
    """Inputs and their gradients have the inputs' dtype, targets are int64, all other buffers float32, sizes int32."""
    inputs = ("z_ptr", "table_ptr", "z_gradient_ptr", "table_gradient_ptr")
    types = {}
    for name in kernel.arg_names:
        if name in inputs:
            types[name] = f"*{dtype}"
        elif name.endswith("_ptr"):
            types[name] = "*i64" if name == "target_ptr" else "*fp32"
        elif name.islower():
            types[name] = "i32"
    return types


def _all() -> Iterator[Configuration]:
    for dtype, torch_dtype in DTYPES.items():
        for width in tile_sizes.FORWARD:
            for cosine in (False, True):
                name = f"{dtype} d={width}{' cosine' if cosine else ''}"
                usual = width == 64 and cosine
                lifted = {"LIFT": lift(torch_dtype)}
                for op, (kernel, table) in TILED.items():
                    tiles = tile_sizes.choose(table, width, torch_dtype)
                    yield Configuration(
                        name=f"catalogue_cross_entropy {op} {name}",
                        kernel=kernel,
                        types=_types(kernel, dtype),
                        constants={
                            "D": width,
                            "BLOCK_B": tiles.sessions,
                            "BLOCK_V": tiles.items,
                            "BLOCK_D": tiles.block,
                            "COSINE": cosine,
                            "INPUT_PRECISION": input_precision(torch_dtype),
                            **(lifted if "LIFT" in kernel.arg_names else {}),
                        },
                        num_warps=tiles.num_warps,
                        num_stages=tiles.num_stages,
                        representative=usual,
                        wgmma=dtype != "fp32",
                    )
                for op, kernel in BY_ROWS.items():
                    yield Configuration(
                        name=f"catalogue_cross_entropy {op} {name}",
                        kernel=kernel,
                        types=_types(kernel, dtype),
                        constants={"D": width, "ROWS": ROWS, "BLOCK_D": width, "COSINE": cosine},
                        representative=usual and dtype == "fp32",
                    )


CONFIGURATIONS = list(_all())
