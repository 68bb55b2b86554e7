"""The kernels of item_rows as they are launched."""

from __future__ import annotations

from kernels.compilation import Configuration
from kernels.dispatch import DTYPES
from kernels.item_rows import distinct
from kernels.item_rows.backward import CHUNKS_AT_ONCE, chunk_size, item_rows_chunk_kernel, item_rows_run_kernel


def _chunks(dtype: str, d: int, block: int, numbers: str) -> Configuration:
    return Configuration(
        name=f"item_rows chunk {dtype} d={d} {numbers}",
        kernel=item_rows_chunk_kernel,
        types={
            "grad_ptr": f"*{dtype}",
            "ids_ptr": f"*{numbers}",
            "places_ptr": "*i64",
            "table_grad_ptr": f"*{dtype}",
            "heads_ptr": "*fp32",
            "tails_ptr": "*fp32",
            "num_places": "i32",
        },
        constants={"D": d, "BLOCK_D": block, "CHUNK": chunk_size(DTYPES[dtype]), "INPUT_PRECISION": "tf32x3"},
        representative=d == 64 and numbers == "i32",
    )


def _runs(dtype: str, d: int, block: int, numbers: str) -> Configuration:
    return Configuration(
        name=f"item_rows run {dtype} d={d} {numbers}",
        kernel=item_rows_run_kernel,
        types={
            "ids_ptr": f"*{numbers}",
            "table_grad_ptr": f"*{dtype}",
            "heads_ptr": "*fp32",
            "tails_ptr": "*fp32",
            "num_places": "i32",
        },
        constants={"D": d, "BLOCK_D": block, "CHUNK": chunk_size(DTYPES[dtype]), "CHUNKS_AT_ONCE": CHUNKS_AT_ONCE},
        representative=d == 64 and numbers == "i32",
    )


def _additions(dtype: str) -> Configuration:
    return Configuration(
        name=f"item_rows add {dtype}",
        kernel=distinct.add_to_rows_kernel,
        types={"target_ptr": f"*{dtype}", "places_ptr": "*i64", "rows_ptr": f"*{dtype}", "num_rows": "i32"},
        constants={"D": 64, "BLOCK_D": 64, "ROWS": distinct.ROWS},
        num_warps=2,
    )


CONFIGURATIONS = [
    *(_additions(dtype) for dtype in DTYPES),
    *(
        make(dtype, d, block, numbers)
        for make in (_chunks, _runs)
        for dtype in DTYPES
        for d, block, numbers in ((64, 64, "i32"), (64, 64, "i64"), (16, 16, "i32"), (32, 32, "i32"), (128, 64, "i32"))
    ),
]
