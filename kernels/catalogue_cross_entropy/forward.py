"""Log-sum-exp over the catalogue and the loss, in two Triton launches and without the logits in memory."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.catalogue_cross_entropy.reference import NORM_EPSILON
from kernels.catalogue_cross_entropy.tile_sizes import FORWARD, block_width, choose, split_catalogue

ROWS = 16


@triton.jit  # type: ignore[untyped-decorator]
def load_rows(rows_ptr: tl.tensor, row: tl.tensor, num_rows: tl.tensor, D: tl.constexpr, BLOCK_D: tl.constexpr) -> tl.tensor:
    """[len(row), BLOCK_D] of a matrix [num_rows, D]; zero outside of it."""
    column = tl.arange(0, BLOCK_D)
    inside = (row < num_rows)[:, None] & (column < D)[None, :]
    return tl.load(rows_ptr + row.to(tl.int64)[:, None] * D + column[None, :], mask=inside, other=0.0)


@triton.jit(do_not_specialize=["num_sessions", "num_items", "tiles_per_split"])  # type: ignore[untyped-decorator]
def catalogue_softmax_forward_kernel(
    z_ptr: tl.tensor,
    table_ptr: tl.tensor,
    item_factor_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    maximum_ptr: tl.tensor,
    total_ptr: tl.tensor,
    num_sessions: tl.tensor,
    num_items: tl.tensor,
    tiles_per_split: tl.tensor,
    D: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_D: tl.constexpr,
    COSINE: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
) -> None:
    """m_b = max_v y_bv and sum_v 2^(y_bv - m_b) over the items of one split, y_bv = log2(e) s f_v <z_b, t_v>.

    Program (i, j): session tile i, split j of the catalogue; f_v is 1/|t_v| under COSINE and 1 otherwise.
    """
    wide = maximum_ptr.dtype.element_ty
    session = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B)
    split = tl.program_id(1)
    z = load_rows(z_ptr, session, num_sessions, D, BLOCK_D)
    scale = tl.load(scale_ptr).to(wide) * tl.full((), 1.4426950408889634, wide)
    maximum = tl.full((BLOCK_B,), float("-inf"), wide)
    total = tl.zeros((BLOCK_B,), wide)
    for step in range(tiles_per_split):
        item = (split * tiles_per_split + step) * BLOCK_V + tl.arange(0, BLOCK_V)
        items = load_rows(table_ptr, item, num_items, D, BLOCK_D)
        logits = tl.dot(z, tl.trans(items), input_precision=INPUT_PRECISION)
        if COSINE:
            factor = tl.load(item_factor_ptr + item, mask=item < num_items, other=0.0) * scale
            logits = logits * factor[None, :]
        else:
            logits = logits * scale
        logits = tl.where((item < num_items)[None, :], logits, float("-inf"))
        raised = tl.maximum(maximum, tl.max(logits, axis=1))
        total = total * tl.exp2(maximum - raised) + tl.sum(tl.exp2(logits - raised[:, None]), axis=1)
        maximum = raised
    place = split.to(tl.int64) * num_sessions + session
    tl.store(maximum_ptr + place, maximum, mask=session < num_sessions)
    tl.store(total_ptr + place, total, mask=session < num_sessions)


@triton.jit(do_not_specialize=["num_sessions", "num_items", "splits"])  # type: ignore[untyped-decorator]
def catalogue_loss_forward_kernel(
    z_ptr: tl.tensor,
    table_ptr: tl.tensor,
    item_factor_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    target_ptr: tl.tensor,
    maximum_ptr: tl.tensor,
    total_ptr: tl.tensor,
    lse_ptr: tl.tensor,
    loss_ptr: tl.tensor,
    num_sessions: tl.tensor,
    num_items: tl.tensor,
    splits: tl.tensor,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
    COSINE: tl.constexpr,
) -> None:
    """Splits merged in their order: log2 sum_v 2^y_bv, and with the target's logit the loss of each session."""
    wide = maximum_ptr.dtype.element_ty
    session = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = session < num_sessions
    maximum = tl.full((ROWS,), float("-inf"), wide)
    total = tl.zeros((ROWS,), wide)
    for split in range(splits):
        place = session + tl.full((ROWS,), split, tl.int64) * num_sessions
        other = tl.load(maximum_ptr + place, mask=inside, other=0.0)
        raised = tl.maximum(maximum, other)
        other_total = tl.load(total_ptr + place, mask=inside, other=1.0)
        total = total * tl.exp2(maximum - raised) + other_total * tl.exp2(other - raised)
        maximum = raised
    lse = maximum + tl.log2(total)
    target = tl.load(target_ptr + session, mask=inside, other=0)
    # A device cannot refuse a target outside the table; its loss is NaN instead of a number from elsewhere.
    known = (target >= 0) & (target < num_items)
    target = tl.where(known, target, 0)
    z = load_rows(z_ptr, session, num_sessions, D, BLOCK_D).to(wide)
    rows = load_rows(table_ptr, target, num_items, D, BLOCK_D).to(wide)
    scale = tl.load(scale_ptr).to(wide)
    logit = tl.sum(z * rows, axis=1) * scale
    if COSINE:
        logit = logit * tl.load(item_factor_ptr + target, mask=inside, other=0.0)
    tl.store(lse_ptr + session, lse, mask=inside)
    loss = lse * tl.full((), 0.6931471805599453, wide) - logit
    tl.store(loss_ptr + session, tl.where(known, loss, float("nan")), mask=inside)


def directions(rows: torch.Tensor, inverse_norms: torch.Tensor) -> torch.Tensor:
    """x / |x| in the dtype of x."""
    return (rows * inverse_norms[:, None]).to(rows.dtype)


def inverse_norms(rows: torch.Tensor) -> torch.Tensor:
    """1 / |x| of each row, 0 where the norm counts as zero; float32 (float64 for float64 rows)."""
    wide = torch.promote_types(rows.dtype, torch.float32)
    norm: torch.Tensor = torch.linalg.vector_norm(rows, dim=1, dtype=wide)
    return torch.where(norm > NORM_EPSILON, norm.reciprocal(), 0.0)


def input_precision(dtype: torch.dtype) -> str:
    """How ``tl.dot`` multiplies: float32 as three products of tf32 halves, which keeps 21 bits."""
    return "tf32x3" if dtype == torch.float32 else "tf32"


def lift(dtype: torch.dtype) -> int:
    """Power of two by which probabilities are raised before they become factors of a product."""
    return 15 if dtype == torch.float16 else 0


def catalogue_forward(
    z: torch.Tensor, table: torch.Tensor, target: torch.Tensor, scale: torch.Tensor, cosine: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Launch the forward kernels.

    Args:
        z: float [B, d], contiguous; B > 0.
        table: float [V, d], contiguous, same dtype; V > 0.
        target: int64 [B].
        scale: float 0-d.
        cosine: compare directions.

    Returns:
        Losses [B], log2 of the sums of exponentials [B], inverse norms of the items ([V], or [0] without ``cosine``); all
        float32, or float64 for float64 inputs.
    """
    num_sessions, dimension = z.shape
    wide = torch.promote_types(z.dtype, torch.float32)
    item_factor = inverse_norms(table) if cosine else scale.new_empty(0, dtype=wide)
    if cosine:
        z = directions(z, inverse_norms(z))
    tiles = choose(FORWARD, z)
    splits, per_split = split_catalogue(num_sessions, len(table), tiles)
    maximum = torch.empty((splits, num_sessions), dtype=wide, device=z.device)
    total = torch.empty_like(maximum)
    lse = torch.empty(num_sessions, dtype=wide, device=z.device)
    losses = torch.empty_like(lse)
    with torch.cuda.device_of(z):  # type: ignore[no-untyped-call]
        catalogue_softmax_forward_kernel[(triton.cdiv(num_sessions, tiles.sessions), splits)](
            z,
            table,
            item_factor,
            scale,
            maximum,
            total,
            num_sessions,
            len(table),
            per_split,
            D=dimension,
            BLOCK_B=tiles.sessions,
            BLOCK_V=tiles.items,
            BLOCK_D=block_width(dimension),
            COSINE=cosine,
            INPUT_PRECISION=input_precision(z.dtype),
            num_warps=tiles.num_warps,
            num_stages=tiles.num_stages,
        )
        catalogue_loss_forward_kernel[(triton.cdiv(num_sessions, ROWS),)](
            z,
            table,
            item_factor,
            scale,
            target,
            maximum,
            total,
            lse,
            losses,
            num_sessions,
            len(table),
            splits,
            D=dimension,
            ROWS=ROWS,
            BLOCK_D=block_width(dimension),
            COSINE=cosine,
        )
    return losses, lse, item_factor
