"""The kernels of the gated layer as they are launched."""

from __future__ import annotations

from typing import Any

from kernels.compilation import Configuration
from kernels.dispatch import DTYPES
from kernels.gated_graph.backward import (
    gated_layers_backward_kernel,
    parts_of_launch,
    wide_gate_gradients_kernel,
    wide_input_gradients_kernel,
)
from kernels.gated_graph.forward import gated_layers_forward_kernel
from kernels.gated_graph.launch import STEP, constants, padded_dimension, product_constants
from kernels.gated_graph.project import CHUNK, gated_project_forward_kernel
from kernels.gated_graph.wide import wide_edges_kernel

EVERY = [(name, d) for name, dtype in DTYPES.items() for d in (16, 32, 64, 128) if padded_dimension(d, dtype) == d]
# What every kernel of the layer is told of the graph, and sizes that vary.
GRAPH = {"blocks_ptr": "*i64", "planes_ptr": "*i32", "degrees_ptr": "*i32", "plane_words": "i32", "num_planes": "i32"}


def _pointers(dtype: str, *names: str) -> dict[str, str]:
    return {f"{name}_ptr": f"*{dtype}" for name in names}


def _forward(dtype: str, d: int, wide: bool) -> Configuration:
    return Configuration(
        name=f"gated_layers_forward {dtype} d={d}{' wide' if wide else ''}",
        kernel=gated_layers_forward_kernel,
        types={
            **_pointers(dtype, "nodes", "out", "states", "means", "maps", "biases"),
            **GRAPH,
            "num_nodes": "i32",
            "num_layers": "i32",
            "width": "i32",
        },
        constants={**constants(d, DTYPES[dtype]), "STEP": STEP, "WIDE": wide},
        num_stages=1,
        representative=d == 64 and not wide,
        wgmma=True,
    )


def _wide_edges(dtype: str, d: int, mean: bool) -> Configuration:
    shared: dict[str, Any] = constants(d, DTYPES[dtype])
    return Configuration(
        name=f"gated_layers wide {'means' if mean else 'sums'} {dtype} d={d}",
        kernel=wide_edges_kernel,
        types={**_pointers(dtype, "left", "right", "out"), **GRAPH},
        constants={**shared, "MEAN": mean},
        num_warps=8,
        num_stages=1,
        representative=d == 64 and mean,
    )


def _backward(dtype: str, d: int) -> list[Configuration]:
    sizes = ("num_nodes", "last_layer", "first_layer", "width")
    return [
        Configuration(
            name=f"gated_layers_backward {dtype} d={d} {' '.join(name.lower() for name, taken in parts.items() if taken)}",
            kernel=gated_layers_backward_kernel,
            types={
                **_pointers(dtype, "nodes", "states", "grad", "nodes_grad", "between", "pre", "means", "maps", "biases"),
                **GRAPH,
                **dict.fromkeys(sizes, "i32"),
            },
            constants={**constants(d, DTYPES[dtype]), "STEP": STEP, **parts},
            num_stages=1,
            representative=d == 64,
            wgmma=True,
        )
        for parts in parts_of_launch(DTYPES[dtype])
    ]


def _wide_gate_gradients(dtype: str, d: int) -> Configuration:
    return Configuration(
        name=f"gated_layers wide gate gradients {dtype} d={d}",
        kernel=wide_gate_gradients_kernel,
        types={
            **_pointers(dtype, "nodes", "means", "grad", "pre", "target", "maps", "biases"),
            "blocks_ptr": "*i64",
            "degrees_ptr": "*i32",
            "width": "i32",
        },
        constants={**constants(d, DTYPES[dtype]), "STEP": STEP},
        num_stages=1,
        representative=d == 64,
    )


def _wide_input_gradients(dtype: str, d: int) -> Configuration:
    shared = product_constants(d, DTYPES[dtype])
    num_warps = shared.pop("num_warps")
    return Configuration(
        name=f"gated_layers wide input gradients {dtype} d={d}",
        kernel=wide_input_gradients_kernel,
        types={
            **_pointers(dtype, "pre", "target", "shares_in", "shares_out", "maps"),
            "blocks_ptr": "*i64",
            "degrees_ptr": "*i32",
            "width": "i32",
        },
        constants={**shared, "STEP": STEP},
        num_warps=num_warps,
        num_stages=1,
        representative=d == 64,
    )


def _project(dtype: str, d: int, wide: bool) -> Configuration:
    sizes = ("num_nodes", "num_layers", "width", "num_columns", "num_prompts", "prompt_length", "chunks")
    return Configuration(
        name=f"gated_project_forward {dtype} d={d}{' wide' if wide else ''}",
        kernel=gated_project_forward_kernel,
        types={
            **_pointers(dtype, "nodes", "hidden", "states", "maps", "biases", "projection", "out"),
            **GRAPH,
            "rows_ptr": "*i64",
            "positions_ptr": "*i64",
            **dict.fromkeys(sizes, "i32"),
        },
        constants={**constants(d, DTYPES[dtype]), "STEP": STEP, "CHUNK": CHUNK, "WIDE": wide},
        num_stages=1,
        representative=d == 64 and not wide,
        wgmma=True,
    )


CONFIGURATIONS = [
    *(one for dtype, d in EVERY for one in _backward(dtype, d)),
    *(make(dtype, d) for make in (_wide_gate_gradients, _wide_input_gradients) for dtype, d in EVERY),
    *(make(dtype, d, flag) for make in (_forward, _wide_edges, _project) for dtype, d in EVERY for flag in (False, True)),
]
