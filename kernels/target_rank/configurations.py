"""How the kernel of this op is launched, for the compiler gate."""

from __future__ import annotations

from itertools import product

from kernels.catalogue_cross_entropy.configurations import KINDS
from kernels.catalogue_cross_entropy.forward import input_precision
from kernels.compilation import Configuration
from kernels.dispatch import DTYPES
from kernels.target_rank.forward import TILES, target_rank_kernel

CONFIGURATIONS = [
    Configuration(
        name=f"target_rank {dtype} d={width}{' cosine' if cosine else ''}",
        kernel=target_rank_kernel,
        types={
            "z_ptr": f"*{dtype}",
            "table_ptr": f"*{dtype}",
            "item_factor_ptr": "*fp32",
            "target_ptr": "*i64",
            "above_ptr": "*i32",
            "num_sessions": "i32",
            "num_items": "i32",
            "tiles_per_split": "i32",
        },
        constants={
            "D": width,
            "BLOCK_B": tiles.sessions,
            "BLOCK_V": tiles.items,
            "BLOCK_D": width,
            "COSINE": cosine,
            "INPUT_PRECISION": input_precision(DTYPES[dtype]),
        },
        num_warps=tiles.num_warps,
        num_stages=tiles.num_stages,
        representative=width == 64 and cosine,
        wgmma=kind != "single",
        targets=targets,
    )
    for (dtype, kind, targets), cosine in product(KINDS, (False, True))
    for width, tiles in TILES[kind].items()
]
