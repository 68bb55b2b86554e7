"""One pass of a softmax over the catalogue that leaves the log-sum-exp and the gradients behind, not the probabilities."""

from __future__ import annotations

from typing import NamedTuple

import torch

# Logits held at a time: 4 MB of float32, which the caches of a CPU core keep between the products that use them.
CHUNK_LOGITS = 1 << 20
# From this many items on a chunk of whole rows no longer fits, and the catalogue is cut instead, at a fourth product.
WHOLE_ROW_ITEMS = 1 << 17
# exp(-40) and V * exp(40) are far from the ends of float32, so logits within ±40 need no shift by their maximum.
SAFE_LOGIT = 40.0


class SoftmaxPass(NamedTuple):
    """Outcome of a pass; gradients are those of sum_b w_b * logsumexp_v <z_b, t_v>.

    Attributes:
        lse: float [B].
        z_grad: float [B, d] or None.
        table_grad: float [V, d] or None.
    """

    lse: torch.Tensor
    z_grad: torch.Tensor | None
    table_grad: torch.Tensor | None


def softmax_pass(
    z: torch.Tensor, table: torch.Tensor, row_weights: torch.Tensor | None, needs_z: bool, needs_table: bool
) -> SoftmaxPass:
    """Log-sum-exp over the catalogue and its gradients, with at most a chunk of the B x V logits in memory.

    Args:
        z: float [B, d]; scale and norms already applied.
        table: float [V, d].
        row_weights: float [B], w_b; None if no gradient is asked for.
        needs_z: the gradient with respect to z is wanted.
        needs_table: that with respect to the table is wanted.
    """
    if len(table) <= WHOLE_ROW_ITEMS:
        return _row_chunks(z, table, row_weights, needs_z, needs_table)
    return _column_chunks(z, table, row_weights, needs_z, needs_table)


def _row_chunks(
    z: torch.Tensor, table: torch.Tensor, row_weights: torch.Tensor | None, needs_z: bool, needs_table: bool
) -> SoftmaxPass:
    """Chunks of sessions, each against the whole catalogue: exponentials in place, then both gradient products.

    The division by the sum of exponentials goes into the small factors, so the chunk is written twice and read three times.
    """
    height = max(16, CHUNK_LOGITS // max(1, len(table)))
    lse = z.new_empty(len(z))
    z_grad = torch.empty_like(z) if needs_z else None
    table_grad = torch.zeros_like(table) if needs_table else None
    buffer = z.new_empty(min(height, len(z)), len(table))
    bounded = len(z) > 0 and bool(_largest_norm(z) * _largest_norm(table) <= SAFE_LOGIT)
    for begin in range(0, len(z), height):
        rows = slice(begin, begin + height)
        logits = torch.mm(z[rows], table.T, out=buffer[: len(z[rows])])
        shift: torch.Tensor | float = 0.0
        if not bounded:
            shift = logits.amax(dim=1)
            logits -= shift[:, None]
        exponentials = logits.exp_()
        total = exponentials.sum(dim=1)
        lse[rows] = total.log() + shift
        if row_weights is None:
            continue
        share = (row_weights[rows] / total)[:, None]
        if z_grad is not None:
            torch.mm(exponentials, table, out=z_grad[rows]).mul_(share)
        if table_grad is not None:
            table_grad.addmm_(exponentials.T, z[rows] * share)
    return SoftmaxPass(lse, z_grad, table_grad)


def _column_chunks(
    z: torch.Tensor, table: torch.Tensor, row_weights: torch.Tensor | None, needs_z: bool, needs_table: bool
) -> SoftmaxPass:
    """Chunks of items against all sessions: a pass for the log-sum-exp, a second one for the gradients."""
    width = max(256, CHUNK_LOGITS // max(1, len(z)))
    buffer = z.new_empty(width, len(z))
    maximum = z.new_full((len(z),), float("-inf"))
    total = z.new_zeros(len(z))
    for begin in range(0, len(table), width):
        items = table[begin : begin + width]
        logits = torch.mm(items, z.T, out=buffer[: len(items)])
        raised = torch.maximum(maximum, logits.amax(dim=0))
        total *= (maximum - raised).exp_()
        total += logits.sub_(raised).exp_().sum(dim=0)
        maximum = raised
    lse = total.log_() + maximum
    if row_weights is None:
        return SoftmaxPass(lse, None, None)
    weighted = z * row_weights[:, None]
    z_grad = torch.zeros_like(z) if needs_z else None
    table_grad = torch.empty_like(table) if needs_table else None
    for begin in range(0, len(table), width):
        items = table[begin : begin + width]
        probabilities = torch.mm(items, z.T, out=buffer[: len(items)]).sub_(lse).exp_()
        if z_grad is not None:
            z_grad.addmm_(probabilities.T, items)
        if table_grad is not None:
            torch.mm(probabilities, weighted, out=table_grad[begin : begin + width])
    return SoftmaxPass(lse, None if z_grad is None else z_grad.mul_(row_weights[:, None]), table_grad)


def _largest_norm(rows: torch.Tensor) -> torch.Tensor:
    norms: torch.Tensor = torch.linalg.vector_norm(rows, dim=1)
    return norms.max()
