"""The Triton kernels of the catalogue cross-entropy, in Triton's interpreter, against the definition in float64."""

from __future__ import annotations

import pytest
import torch
from catalogue_cases import BOUNDS, assert_close, definition, draw, gradients
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import catalogue_cross_entropy
from kernels.catalogue_cross_entropy import tile_sizes
from kernels.catalogue_cross_entropy.reference import catalogue_cross_entropy_reference
from kernels.catalogue_cross_entropy.tile_sizes import Tiles
from kernels.dispatch import interpreting

pytestmark = pytest.mark.skipif(not interpreting(), reason="the interpreter is off: a GPU is here, and its tests run there")

SMALL = {64: Tiles(16, 16, 4, 2), 128: Tiles(16, 16, 4, 2)}


@pytest.fixture(autouse=True)
def triton(monkeypatch):
    monkeypatch.setenv("LLMGR_KERNELS", "triton")


@pytest.fixture
def small_tiles(monkeypatch):
    """Several tiles and splits from a handful of sessions and items on."""
    for table in (tile_sizes.FORWARD, tile_sizes.SESSION_GRADIENT, tile_sizes.TABLE_GRADIENT):
        for kind in ("half", "single"):
            monkeypatch.setitem(table, kind, SMALL)


@pytest.mark.parametrize("dtype", list(BOUNDS))
@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_values_and_gradients_are_the_definitions(dtype, cosine, reduction):
    z, table, target, scale = draw(70, 150, dtype=dtype, scale=8.0 if cosine else 1.0)
    pull = torch.linspace(-1, 2, 70, dtype=torch.float64) if reduction == "none" else 1.0
    found = gradients(catalogue_cross_entropy, z, table, target, scale, cosine, reduction, pull)
    assert_close(found, definition(z, table, target, scale, cosine, reduction, pull), dtype)


@pytest.mark.parametrize("dtype", list(BOUNDS))
@pytest.mark.parametrize("cosine", [False, True])
def test_many_tiles_and_splits_add_up_to_the_whole(small_tiles, monkeypatch, dtype, cosine):
    monkeypatch.setattr(tile_sizes, "PROGRAMS", 9)
    z, table, target, scale = draw(37, 131, dtype=dtype)
    assert tile_sizes.split_catalogue(37, 131, SMALL[64]) == (3, 3)
    found = gradients(catalogue_cross_entropy, z, table, target, scale, cosine)
    assert_close(found, definition(z, table, target, scale, cosine), dtype)


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_gradients_by_finite_differences(small_tiles, cosine, reduction):
    z, table, target, scale = draw(17, 19, dimension=2)
    assert torch.autograd.gradcheck(
        lambda *t: catalogue_cross_entropy(t[0], t[1], target, t[2], cosine, reduction), (z, table, scale), fast_mode=True
    )


@pytest.mark.slow
@pytest.mark.parametrize("cosine", [False, True])
def test_every_single_gradient_by_finite_differences(small_tiles, cosine):
    z, table, target, scale = draw(17, 19, dimension=2)
    assert torch.autograd.gradcheck(lambda *t: catalogue_cross_entropy(t[0], t[1], target, t[2], cosine), (z, table, scale))


@settings(deadline=None, max_examples=12, derandomize=True)
@given(
    sessions=st.integers(1, 40),
    items=st.integers(1, 70),
    dimension=st.integers(1, 66),
    scale=st.floats(-2, 30),
    cosine=st.booleans(),
)
def test_odd_shapes_in_single_precision(sessions, items, dimension, scale, cosine):
    z, table, target, factor = draw(sessions, items, dimension, torch.float32, scale, seed=sessions, size=0.3)
    found = gradients(catalogue_cross_entropy, z, table, target, factor, cosine, "sum")
    expected = definition(z, table, target, factor, cosine, "sum")
    assert abs(found[0].item() - expected[0].item()) <= 1e-5 * (1 + abs(scale)) * sessions
    for one, other in zip(found[1:], expected[1:], strict=True):
        assert float((one.double() - other).abs().max()) <= 1e-5 * (1 + abs(scale)) * max(1.0, float(other.abs().max()))


@pytest.mark.parametrize("dimension", [64, 128, 256])
def test_wide_vectors(dimension):
    z, table, target, scale = draw(5, 40, dimension, torch.float16, scale=0.2)
    assert_close(
        gradients(catalogue_cross_entropy, z, table, target, scale, False),
        definition(z, table, target, scale, False),
        torch.float16,
    )


def test_what_is_too_wide_is_refused():
    z, table, target, scale = draw(2, 3, 129, torch.float32)
    with pytest.raises(ValueError, match=r"d=129, and it takes torch\.float32 up to d=128"):
        catalogue_cross_entropy(z, table, target, scale)


@pytest.mark.parametrize(("cosine", "scale"), [(False, 1.0), (True, 15.6)])
def test_probabilities_far_below_the_range_of_half_precision_still_count(cosine, scale):
    # The first item takes all but 2e-7 an item, of which fp16 would keep two bits; together the sessions make that 2e-5.
    generator = torch.Generator().manual_seed(3)
    z = (1.0 + 0.1 * torch.randn(100, 4, generator=generator)).half().requires_grad_()
    table = torch.tensor([1.0, -1.0, 1.0, -1.0]) + 0.01 * torch.randn(150, 4, generator=generator)
    table[0] = 3.9
    table = table.half().requires_grad_()
    arguments = (z, table, torch.zeros(100, dtype=torch.int64), torch.tensor(scale, requires_grad=True), cosine, "sum")
    found, expected = gradients(catalogue_cross_entropy, *arguments)[2][1:].double(), definition(*arguments)[2][1:]
    assert float(expected.abs().mean()) < 1e-3
    assert float((found - expected).norm() / expected.norm()) < 4e-3


def test_items_of_very_different_norms_share_a_half_precision_product():
    z, table, target, scale = draw(20, 60, 8, torch.float16)
    with torch.no_grad():
        table[::2] *= 2e-3
    found = gradients(catalogue_cross_entropy, z, table, target, scale, True)
    expected = definition(z, table, target, scale, True)
    assert_close(found[:2], expected[:2], torch.float16)
    assert_close([found[2][1::2]], [expected[2][1::2]], torch.float16)
    assert_close([found[2][::2]], [expected[2][::2]], torch.float16)


def test_large_logits_do_not_overflow():
    z, table, target, scale = draw(20, 60, dtype=torch.float32, size=300.0)
    found = gradients(catalogue_cross_entropy, z, table, target, scale, False)
    expected = definition(z, table, target, scale, False)
    assert found[0].item() == pytest.approx(expected[0].item(), rel=1e-5)
    assert all(gradient.isfinite().all() for gradient in found)


def test_order_and_batching_of_sessions_do_not_matter():
    z, table, target, scale = draw(30, 50, dtype=torch.float32)
    losses, z_gradient, table_gradient, _ = gradients(catalogue_cross_entropy, z, table, target, scale, True, "none")
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    mixed = gradients(catalogue_cross_entropy, z[order], table, target[order], scale, True, "none")
    assert torch.allclose(mixed[0], losses[order], rtol=1e-6, atol=1e-6)
    parts = [
        gradients(catalogue_cross_entropy, z[part], table, target[part], scale, True, "none")
        for part in (slice(0, 7), slice(7, 30))
    ]
    assert torch.allclose(torch.cat([part[0] for part in parts]), losses, rtol=1e-6, atol=1e-6)
    assert torch.allclose(parts[0][2] + parts[1][2], table_gradient, rtol=1e-5, atol=1e-5)
    again = torch.autograd.grad(catalogue_cross_entropy(z[order], table, target[order], scale, True, "sum"), z)[0]
    assert torch.allclose(again, z_gradient, rtol=1e-5, atol=1e-6)


def test_permuted_items_give_the_same_loss(small_tiles):
    z, table, target, scale = draw(20, 50)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    place = torch.argsort(order)
    losses = catalogue_cross_entropy(z, table, target, scale, True, "none")
    moved = catalogue_cross_entropy(z, table[order], place[target], scale, True, "none")
    assert torch.allclose(losses, moved, rtol=1e-12)


def test_runs_repeat_bit_by_bit(small_tiles):
    first, second = (gradients(catalogue_cross_entropy, *draw(40, 90, dtype=torch.float32), True) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_two_dtypes_meet_in_the_wider_one():
    z, table, target, _ = draw(10, 20, dtype=torch.float32)
    half = table.detach().half().requires_grad_()
    loss = catalogue_cross_entropy(z, half, target, 2.0, cosine=True)
    expected = catalogue_cross_entropy_reference(z.double(), half.double(), target, 2.0, cosine=True)
    assert abs(loss.item() - expected.item()) < 1e-6
    loss.backward()
    assert half.grad.dtype == torch.float16


def test_rows_of_a_wider_matrix_and_numbers_as_scale():
    z, table, target, _ = draw(10, 20, 8)
    loss = catalogue_cross_entropy(z[:, ::2], table[:, ::2], target, 2.0)
    assert torch.allclose(loss, catalogue_cross_entropy_reference(z[:, ::2], table[:, ::2], target, 2.0), rtol=1e-12)


def test_a_zero_vector_under_cosine_gets_no_gradient():
    z, table, target, scale = draw(3, 8, dtype=torch.float32)
    with torch.no_grad():
        z[1], table[2] = 0, 0
    catalogue_cross_entropy(z, table, target, scale, cosine=True).backward()
    for gradient, row in ((z.grad, 1), (table.grad, 2)):
        assert gradient.isfinite().all()
        assert not gradient[row].any()


@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_infinite_vectors_show_in_the_loss(bad):
    z, table, target, scale = draw(3, 8, dtype=torch.float32)
    broken = z.detach().clone()
    broken[1, 2] = bad
    assert not catalogue_cross_entropy(broken, table, target, scale).isfinite()


def test_empty_batches_have_their_losses_and_gradients():
    z, table, target, scale = draw(3, 8)
    none = target[:0]
    assert catalogue_cross_entropy(z[:0], table, none, scale, reduction="none").shape == (0,)
    assert catalogue_cross_entropy(z[:0], table, none, scale).isnan()
    loss = catalogue_cross_entropy(z[:0], table, none, scale, reduction="sum")
    assert loss == 0
    loss.backward()
    assert z.grad.shape == z.shape
    assert not table.grad.any()
