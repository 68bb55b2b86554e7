"""Ranks of the targets equal those counted on the full matrix of scores, on the CPU and in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import target_rank
from kernels.catalogue_cross_entropy.tile_sizes import Tiles
from kernels.dispatch import interpreting
from kernels.target_rank import forward, torch_path
from kernels.target_rank.reference import target_rank_reference

TRITON = pytest.param("triton", marks=pytest.mark.skipif(not interpreting(), reason="the interpreter is off: a GPU is here"))


@pytest.fixture(params=["torch", TRITON])
def path(request, monkeypatch):
    """Either path, cut so small that a handful of items needs several chunks, tiles and splits."""
    monkeypatch.setenv("LLMGR_KERNELS", request.param)
    monkeypatch.setattr(torch_path, "CHUNK_SCORES", 100)
    for kind in ("half", "single"):
        monkeypatch.setitem(forward.TILES, kind, {64: Tiles(16, 16, 4, 2)})
    return request.param


def draw(sessions, items, dimension=8, dtype=torch.float32, seed=0):
    """Small whole numbers, whose products are exact, so that many scores are equal."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randint(-2, 3, (sessions, dimension), generator=generator).to(dtype)
    table = torch.randint(-2, 3, (items, dimension), generator=generator).to(dtype)
    return z, table, torch.randint(0, items, (sessions,), generator=generator)


@settings(deadline=None, max_examples=10, derandomize=True)
@given(sessions=st.integers(1, 40), items=st.integers(1, 70), dimension=st.integers(1, 5))
def test_ranks_are_exact_where_products_are(sessions, items, dimension):
    z, table, target = draw(sessions, items, dimension)
    assert torch.equal(target_rank(z, table, target), target_rank_reference(z, table, target))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_equal_scores_are_not_above(path, dtype):
    z, table, target = draw(37, 61, 3, dtype)
    found = target_rank(z, table, target)
    assert torch.equal(found, target_rank_reference(z.double(), table.double(), target))
    assert found.dtype == torch.int64


def test_directions_are_compared_under_cosine(path):
    generator = torch.Generator().manual_seed(2)
    z, table = (torch.randn(n, 6, dtype=torch.float64, generator=generator) for n in (20, 50))
    table[::3] *= 100
    table[5] = 0
    target = torch.randint(0, 50, (20,), generator=generator)
    expected = target_rank_reference(z, table, target, cosine=True)
    assert torch.equal(target_rank(z, table, target, cosine=True), expected)
    assert not torch.equal(target_rank(z, table, target), expected)


def test_a_row_that_stands_twice_ranks_alike(path):
    generator = torch.Generator().manual_seed(2)
    z, half = torch.randn(30, 7, generator=generator), torch.randn(40, 7, generator=generator)
    target = torch.randint(0, 40, (30,), generator=generator)
    table = torch.cat([half, half])
    assert torch.equal(target_rank(z, table, target), target_rank(z, table, target + 40))


def test_order_of_sessions_and_their_number_do_not_matter(path):
    z, table, target = draw(40, 50)
    ranks = target_rank(z, table, target)
    assert torch.equal(target_rank(z[7:9], table, target[7:9]), ranks[7:9])
    assert torch.equal(target_rank(z.flip(0), table, target.flip(0)), ranks.flip(0))
    assert target_rank(z[:0], table, target[:0]).shape == (0,)


def test_no_gradient_is_asked_for(path):
    z, table, target = draw(4, 9)
    assert not target_rank(z.requires_grad_(), table.requires_grad_(), target).requires_grad


def test_bad_shapes_are_refused():
    z, table, target = draw(4, 9)
    with pytest.raises(ValueError, match="do not fit"):
        target_rank(z, table[:, :2], target)


@pytest.mark.skipif(not interpreting(), reason="the interpreter is off: a GPU is here")
def test_the_operator_is_registered_as_torch_asks(monkeypatch):
    monkeypatch.setenv("LLMGR_KERNELS", "triton")
    z, table, target = draw(4, 9)
    expected = target_rank(z, table, target, True)
    torch.library.opcheck(torch.ops.llmgr.target_rank, (z, table, target, True))
    compiled = torch.compile(target_rank, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(z, table, target, True), expected)
