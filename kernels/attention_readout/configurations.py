"""The kernels of the attention readout as they are launched."""

from __future__ import annotations

from typing import Any

import triton.language as tl

from kernels.attention_readout import backward, forward
from kernels.compilation import Configuration
from kernels.dispatch import DTYPES

OF_GRAPH = {"node_offsets_ptr": "*i64", "last_node_ptr": "*i64", "node_clicks_ptr": "*fp32", "num_sessions": "i32"}
OF_FORWARD = ["nodes", "of_last", "of_node", "bias", "score", "output", "output_bias", "out", "joined"]
OF_BACKWARD = ["nodes", "of_node", "score", "query", "grad_joined", "grad_nodes", "grad_query", "grad_hidden"]


def _configuration(name: str, kernel: Any, tensors: list[str], sums: list[str], dtype: str, d: int) -> Configuration:
    tile, warps, step = forward.shape_of_program(DTYPES[dtype], d)
    floats = {**{f"{tensor}_ptr": f"*{dtype}" for tensor in tensors}, **{f"{tensor}_ptr": "*fp32" for tensor in sums}}
    return Configuration(
        name=f"attention_readout {name} {dtype} d={d}",
        kernel=kernel,
        types={**OF_GRAPH, **floats},
        constants={
            "D": d,
            "BLOCK_D": d,
            "TILE": tile,
            "SESSIONS": forward.SESSIONS,
            "STEP": step,
            "WIDE": tl.float32,
            "INPUT_PRECISION": "tf32x3",
        },
        num_warps=warps,
        representative=d == 64,
    )


CONFIGURATIONS = [
    _configuration(*kernel, dtype, d)
    for kernel in (
        ("forward", forward.attention_readout_fwd_kernel, OF_FORWARD, []),
        ("backward", backward.attention_readout_bwd_kernel, OF_BACKWARD, ["grad_score"]),
    )
    for dtype in DTYPES
    for d in (16, 32, 64, 128)
]
