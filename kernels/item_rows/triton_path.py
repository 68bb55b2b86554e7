"""Looking rows up as operators of torch, so that autograd, torch.compile and checkpointing see through them."""

from __future__ import annotations

from typing import Any

import torch

from kernels.item_rows.backward import launch


@torch.library.custom_op("llmgr::item_rows_forward", mutates_args=())
def item_rows_forward(table: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """float [N, d]; torch's own gather runs at the rate of a copy, so there is no kernel of ours."""
    return table.index_select(0, ids)


@torch.library.custom_op("llmgr::item_rows_backward", mutates_args=())
def item_rows_backward(grad: torch.Tensor, ids: torch.Tensor, num_rows: int) -> torch.Tensor:
    """float [V, d], the gradient of the table."""
    return launch(grad, ids, num_rows)


@item_rows_forward.register_fake
def _(table: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return table.new_empty(ids.shape[0], table.shape[1])


@item_rows_backward.register_fake
def _(grad: torch.Tensor, ids: torch.Tensor, num_rows: int) -> torch.Tensor:
    return grad.new_empty(num_rows, grad.shape[1])


def _save(ctx: Any, inputs: tuple[torch.Tensor, torch.Tensor], output: torch.Tensor) -> None:
    table, ids = inputs
    ctx.save_for_backward(ids)
    ctx.num_rows = table.shape[0]


def _gradients(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
    (ids,) = ctx.saved_tensors
    return item_rows_backward(grad, ids, ctx.num_rows), None


item_rows_forward.register_autograd(_gradients, setup_context=_save)
