"""Keys, their order, and the selection of blocks, kernel by kernel in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")
import triton
import triton.language as tl

from kernels.score_topk import launch_plan
from kernels.score_topk.bitonic import keep_best, largest, turned_round
from kernels.score_topk.keys import as_keys, items_of, scores_of
from kernels.score_topk.select_blocks import select_blocks_kernel

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the interpreter's cases; those on a GPU are marked gpu")
SMALLEST = -(1 << 63)


@triton.jit
def largest_kernel(keys_ptr, out_ptr, SIZE: tl.constexpr, KEEP: tl.constexpr):
    tl.store(out_ptr + tl.arange(0, KEEP), largest(tl.load(keys_ptr + tl.arange(0, SIZE)), KEEP))


@triton.jit
def keep_best_kernel(best_ptr, keys_ptr, out_ptr, SIZE: tl.constexpr, KEEP: tl.constexpr):
    place = tl.arange(0, KEEP)
    kept = keep_best(tl.load(best_ptr + place), tl.load(keys_ptr + tl.arange(0, SIZE)), KEEP)
    tl.store(out_ptr + place, turned_round(kept, KEEP))


@triton.jit
def keys_kernel(scores_ptr, items_ptr, keys_ptr, scores_back_ptr, items_back_ptr, SIZE: tl.constexpr):
    place = tl.arange(0, SIZE)
    keys = as_keys(tl.load(scores_ptr + place), tl.load(items_ptr + place))
    tl.store(keys_ptr + place, keys)
    tl.store(scores_back_ptr + place, scores_of(keys))
    tl.store(items_back_ptr + place, items_of(keys))


@pytest.mark.parametrize(("size", "keep"), [(2, 2), (64, 2), (64, 16), (64, 64), (1024, 32)])
def test_the_largest_keys_stand_in_order(size, keep):
    keys = torch.randint(SMALLEST, -SMALLEST - 1, (size,), generator=torch.Generator().manual_seed(size + keep))
    keys[: size // 4] = SMALLEST
    out = torch.zeros(keep, dtype=torch.int64)
    largest_kernel[(1,)](keys, out, size, keep)
    assert torch.equal(out, keys.sort(descending=True).values[:keep])


def test_the_best_so_far_take_in_a_block_of_keys():
    generator = torch.Generator().manual_seed(1)
    best = torch.randint(-1000, 1000, (16,), generator=generator).sort().values
    keys = torch.randint(-1000, 1000, (64,), generator=generator)
    out = torch.zeros(16, dtype=torch.int64)
    keep_best_kernel[(1,)](best, keys, out, 64, 16)
    assert torch.equal(out, torch.cat([best, keys]).sort(descending=True).values[:16])


def test_keys_rise_with_the_score_fall_with_the_item_and_hold_both():
    scores = torch.tensor([float("nan"), float("-inf"), -3e38, -1.5, -1.5, -1e-40, 0.0, -0.0, 1e-40, 2.0, 2.0, float("inf")])
    items = torch.tensor([1, 0, 5, 3_000_000_000, 7, 0, 4, 3, 9, 8, 2, 0])
    scores, items = (torch.cat([one, one[:4]]) for one in (scores, items))
    keys, items_back, scores_back = torch.zeros(16, dtype=torch.int64), torch.zeros_like(items), torch.zeros_like(scores)
    keys_kernel[(1,)](scores, items, keys, scores_back, items_back, 16)
    assert keys[:2].tolist() == [SMALLEST] * 2
    assert keys[2:12].tolist() == sorted(keys[2:12].tolist())
    assert keys.unique().numel() == 11
    assert torch.equal(items_back[2:12], items[2:12])
    assert torch.equal(scores_back[2:12], scores[2:12])


@pytest.mark.parametrize(("k", "num_blocks"), [(20, 700), (20, 2500), (100, 1500), (1000, 2500)])
@pytest.mark.parametrize("levels", [9, 10**6])
def test_the_best_blocks_are_selected_ties_by_index(k, num_blocks, levels):
    """Few levels make ties abound; half of the blocks hold nothing eligible."""
    plan = launch_plan.selection_plan(k, num_blocks)
    generator = torch.Generator().manual_seed(num_blocks)
    maxima = torch.randint(0, levels, (2, num_blocks), generator=generator).float()
    maxima[1, torch.rand(num_blocks, generator=generator) < 0.5] = float("-inf")
    maxima[1, 40:] = float("-inf")
    blocks = torch.zeros(2, plan.slots, dtype=torch.int64)
    select_blocks_kernel[(2,)](maxima, blocks, num_blocks, plan.slots, plan.width, plan.span)
    for found, row in zip(blocks, maxima, strict=True):
        order = torch.argsort(row, descending=True, stable=True)[: plan.slots]
        order[row[order] == float("-inf")] = -1
        assert found[: len(order)].tolist() == order.tolist()
        assert (found[len(order) :] == -1).all()


def test_every_catalogue_has_a_layout():
    for k in (1, 28, 29, 124, 125, 1000):
        for num_blocks in (1, 1024, 1025, 1 << 14, 1 << 20):
            plan = launch_plan.selection_plan(k, num_blocks)
            assert plan.slots >= k + launch_plan.SPARE_BLOCKS
            assert plan.span == 0 or plan.width * plan.span >= num_blocks
            assert plan.width >= plan.slots
