"""Rows of the ID table by number, and the gradient of the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from kernels.benchmark.cases import Case, Prepared, Setting, against
from kernels.benchmark.ops.gated_graph import D
from kernels.benchmark.sessions import popular_items
from kernels.benchmark.ways import ways_of
from kernels.item_rows import item_rows

EAGER = "torch's embedding"


def item_rows_cases(setting: Setting) -> Iterator[Case]:
    """N ids of popular items: look up, and a dense gradient."""
    for num_items, num_ids in setting.size(
        [(50, 40)], [(12_101, 20_000)], [(12_101, 20_000), (12_101, 80_000), (1_000_000, 80_000)]
    ):
        yield Case(
            op="item_rows_backward",
            shape=f"N={num_ids:,} V={num_items:,}",
            # Rows read and written, their gradients read, the table's gradient written.
            moved_bytes=(3.0 * num_ids + num_items) * D * setting.item_bytes + 16.0 * num_ids,
            flop=1.0 * num_ids * D,
            prepare=partial(_prepare, setting, num_items, num_ids),
        )


def _prepare(setting: Setting, num_items: int, num_ids: int) -> Prepared:
    ids = torch.from_numpy(popular_items(np.random.default_rng(6), num_items, num_ids)).to(setting.device)
    table = setting.random(num_items, D).requires_grad_()
    upstream = setting.random(num_ids, D, seed=1)

    def gradients(function: Callable[..., torch.Tensor]) -> Callable[..., Any]:
        def call(table: torch.Tensor) -> tuple[torch.Tensor, ...]:
            rows = function(table)
            return rows.detach(), *torch.autograd.grad(rows, [table], upstream)

        return call

    exact = torch.zeros(num_items, D, dtype=torch.float64, device=setting.device).index_add(0, ids, upstream.double())
    return Prepared(
        streamed={"table": table},
        ways=ways_of(
            setting,
            lambda table: item_rows(table, ids),
            {EAGER: lambda table: functional.embedding(ids, table), "indexing": lambda table: table[ids]},
            compiled=EAGER,
            gradients=gradients,
        ),
        check=against([table.detach()[ids].double(), exact]),
    )
