"""The kernels of the self-attention block as they are launched."""

from __future__ import annotations

from typing import Any

import triton.language as tl

from kernels.compilation import Configuration
from kernels.dispatch import DTYPES
from kernels.session_attention import backward, forward, last_row

_GRADIENTS = ["grad", "grad_projected"]


def _all_rows(name: str, kernel: Any, others: str, sums: list[str], dtype: str, width: int, causal: bool) -> Configuration:
    floats = ["projected", *{"forward": ["attended"], "queries": ["attended", *_GRADIENTS]}.get(name, _GRADIENTS)]
    size, compared, warps = (forward if name == "forward" else backward).shape_of_program(DTYPES[dtype], width)
    step_of = backward.step_of_key_products if name == "keys" else forward.step_of_product
    return Configuration(
        name=f"session_attention {name} {dtype} width={width}{' causal' if causal else ''}",
        kernel=kernel,
        types={
            **{f"{tensor}_ptr": f"*{dtype}" for tensor in floats},
            **{f"{tensor}_ptr": "*fp32" for tensor in sums},
            "begins_ptr": "*i64",
            "ends_ptr": "*i64",
            "num_rows": "i32",
            "scale": "fp32",
        },
        constants={
            "D": max(64, width),
            "WIDTH": width,
            "BLOCK_W": width,
            "ROWS": size,
            others: compared,
            "CAUSAL": causal,
            "STEP": step_of(DTYPES[dtype], width),
            "WIDE": tl.float32,
            "INPUT_PRECISION": "tf32x3",
        },
        num_warps=warps,
        representative=width == 64 and not causal,
    )


def _last_row(name: str, kernel: Any, floats: list[str], dtype: str, d: int, heads: int) -> Configuration:
    return Configuration(
        name=f"session_attention last {name} {dtype} d={d} heads={heads}",
        kernel=kernel,
        types={
            **{f"{tensor}_ptr": f"*{dtype}" for tensor in floats},
            "offsets_ptr": "*i64",
            "lse_ptr": "*fp32",
            "num_sessions": "i32",
        },
        constants={
            "D": d,
            "BLOCK_D": d,
            "HEADS": heads,
            "COLUMNS": last_row.COLUMNS,
            "ROWS": last_row.rows_at_once(DTYPES[dtype]),
            **({"STEP": forward.step_of_product(DTYPES[dtype], d)} if name == "backward" else {}),
            "WIDE": tl.float32,
            "INPUT_PRECISION": "tf32x3",
        },
        num_warps=last_row.warps_of(d),
        representative=heads == 1 and d == 64,
    )


_BACK = ["rows", "queries", "pooled", "grad", "grad_rows", "grad_queries"]

CONFIGURATIONS = [
    *(
        _all_rows(name, kernel, others, sums, dtype, width, causal)
        for name, kernel, others, sums in (
            ("forward", forward.session_attention_fwd_kernel, "KEYS", ["lse"]),
            ("queries", backward.session_attention_bwd_queries_kernel, "KEYS", ["lse", "inner"]),
            ("keys", backward.session_attention_bwd_keys_kernel, "QUERIES", ["lse", "inner"]),
        )
        for dtype in DTYPES
        for width, causal in ((128, False), (128, True), (64, False), (64, True), (32, False), (16, False))
    ),
    *(
        _last_row(name, kernel, floats, dtype, d, heads)
        for name, kernel, floats in (
            ("forward", last_row.last_row_fwd_kernel, ["rows", "queries", "pooled"]),
            ("backward", last_row.last_row_bwd_kernel, _BACK),
        )
        for dtype in DTYPES
        for d, heads in ((128, 1), (128, 2), (128, 3), (64, 1), (64, 2), (64, 3), (32, 1), (16, 1))
    ),
]
