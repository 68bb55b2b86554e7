"""How the kernels of this op are launched, for the compiler gate."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

from kernels.catalogue_cross_entropy import tile_sizes
from kernels.catalogue_cross_entropy.forward import (
    ROWS,
    catalogue_loss_forward_kernel,
    catalogue_softmax_forward_kernel,
    input_precision,
    lift,
)
from kernels.catalogue_cross_entropy.session_gradient import (
    catalogue_session_gradient_kernel,
    catalogue_session_merge_kernel,
)
from kernels.catalogue_cross_entropy.table_gradient import catalogue_table_gradient_kernel
from kernels.compilation import TARGETS, Configuration
from kernels.dispatch import DTYPES

# Each dtype, the kind of tiles it takes, and on which chips.
KINDS = (("fp16", "half", TARGETS), ("bf16", "half", TARGETS), ("fp32", "single", (80,)), ("fp32", "single_hopper", (90,)))
TILED: dict[str, tuple[Any, tile_sizes.TilesByWidth]] = {
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


def _tiled() -> Iterator[Configuration]:
    for (op, (kernel, table)), (dtype, kind, targets), cosine in product(TILED.items(), KINDS, (False, True)):
        for width, tiles in table[kind].items():
            constants = {
                "D": width,
                "BLOCK_B": tiles.sessions,
                "BLOCK_V": tiles.items,
                "BLOCK_D": width,
                "COSINE": cosine,
                "LIFT": lift(DTYPES[dtype]),
                "INPUT_PRECISION": input_precision(DTYPES[dtype]),
            }
            yield Configuration(
                name=f"catalogue_cross_entropy {op} {dtype} d={width}{' cosine' if cosine else ''}",
                kernel=kernel,
                types=_types(kernel, dtype),
                constants={name: value for name, value in constants.items() if name in kernel.arg_names},
                num_warps=tiles.num_warps,
                num_stages=tiles.num_stages,
                representative=width == 64 and cosine,
                wgmma=kind == "half" or (kind == "single_hopper" and width == 64),
                targets=targets,
            )


def _by_rows() -> Iterator[Configuration]:
    for (op, kernel), dtype, cosine in product(BY_ROWS.items(), DTYPES, (False, True)):
        for width in tile_sizes.FORWARD["single" if dtype == "fp32" else "half"]:
            yield Configuration(
                name=f"catalogue_cross_entropy {op} {dtype} d={width}{' cosine' if cosine else ''}",
                kernel=kernel,
                types=_types(kernel, dtype),
                constants={"D": width, "ROWS": ROWS, "BLOCK_D": width, "COSINE": cosine},
                representative=width == 64 and cosine,
            )


CONFIGURATIONS = [*_tiled(), *_by_rows()]
