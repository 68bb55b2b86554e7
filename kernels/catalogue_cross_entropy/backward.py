"""Gradients of the losses, launched in Triton: sessions and scale in one pass over the items, the table in another."""

from __future__ import annotations

import torch

from kernels.catalogue_cross_entropy.forward import directions, inverse_norms
from kernels.catalogue_cross_entropy.session_gradient import session_gradient
from kernels.catalogue_cross_entropy.table_gradient import table_gradient


def catalogue_backward(
    weights: torch.Tensor,
    z: torch.Tensor,
    table: torch.Tensor,
    target: torch.Tensor,
    scale: torch.Tensor,
    lse: torch.Tensor,
    item_factor: torch.Tensor,
    cosine: bool,
    needs_session: bool,
    needs_table: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Launch the backward kernels.

    Args:
        weights: float [B], w_b, the gradients of the losses.
        z, table, target, scale, cosine: as given to the forward pass.
        lse, item_factor: as it returned them.
        needs_session: gradients with respect to z and the scale are wanted.
        needs_table: that with respect to the table is wanted.

    Returns:
        Gradients of sum_b w_b loss_b with respect to z [B, d], table [V, d] and scale (0-d, in the dtype of ``lse``); where not
        wanted, empty ones.
    """
    weights = weights.to(lse.dtype).contiguous()
    session_factor = inverse_norms(z) if cosine else lse.new_empty(0)
    directed = directions(z, session_factor) if cosine else z
    z_gradient, scale_gradient = z.new_empty(0), lse.new_empty(0)
    if needs_session:
        z_gradient, scale_gradient = session_gradient(
            weights, z, directed, session_factor, table, target, scale, lse, item_factor, cosine
        )
    items_gradient = table.new_empty(0)
    if needs_table:
        items_gradient = table_gradient(weights, directed, table, target, scale, lse, item_factor, cosine)
    return z_gradient, items_gradient, scale_gradient
