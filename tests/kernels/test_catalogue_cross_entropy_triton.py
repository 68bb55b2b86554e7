"""The Triton kernels of the catalogue cross-entropy, in Triton's interpreter, against the definition in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from kernels import catalogue_cross_entropy
from kernels.catalogue_cross_entropy import tile_sizes
from kernels.catalogue_cross_entropy.backward import catalogue_backward
from kernels.catalogue_cross_entropy.forward import catalogue_forward
from kernels.catalogue_cross_entropy.reference import catalogue_cross_entropy_reference
from kernels.catalogue_cross_entropy.tile_sizes import Tiles
from kernels.dispatch import interpreting

pytestmark = pytest.mark.skipif(not interpreting(), reason="the interpreter is off: a GPU is here, and its tests run there")

# Largest error over the largest value, and root mean squares: research on such kernels in the interpreter asks no more.
BOUNDS = {torch.float64: (1e-12, 1e-13), torch.float32: (1e-5, 1e-6), torch.float16: (4e-3, 2e-3)}
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


def draw(sessions, items, dimension=5, dtype=torch.float64, scale=3.0, seed=0, size=1.0):
    """Inputs of the function: (z, table, target, scale), the floats asking for gradients."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(sessions, dimension, dtype=torch.float64, generator=generator).mul(size).to(dtype)
    table = torch.randn(items, dimension, dtype=torch.float64, generator=generator).to(dtype)
    target = torch.randint(0, items, (sessions,), generator=generator)
    factor = torch.tensor(scale, dtype=torch.promote_types(dtype, torch.float32))
    return z.requires_grad_(), table.requires_grad_(), target, factor.requires_grad_()


def gradients(function, z, table, target, scale, cosine, reduction="mean", pull=1.0):
    """Loss and gradients with respect to z, table and scale."""
    loss = function(z, table, target, scale, cosine, reduction)
    return [loss, *torch.autograd.grad((loss * pull).sum(), [z, table, scale])]


def definition(z, table, target, scale, cosine, reduction="mean", pull=1.0):
    """The same by the definition in float64."""
    wide = [tensor.detach().double().requires_grad_() for tensor in (z, table, scale)]
    return gradients(catalogue_cross_entropy_reference, wide[0], wide[1], target, wide[2], cosine, reduction, pull)


def assert_close(found, expected, dtype):
    """Both measures of error within the bounds of the dtype."""
    largest, mean_square = BOUNDS[dtype]
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert not one.isnan().any()
        error, size = (one.double() - other).detach(), other.detach()
        assert float(error.abs().max()) <= largest * float(size.abs().max().clamp(min=1e-3))
        assert float(error.square().mean().sqrt()) <= mean_square * float(size.square().mean().sqrt().clamp(min=1e-3))


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


def test_only_what_is_asked_for_is_computed():
    z, table, target, scale = draw(20, 30)
    expected = definition(z, table, target, scale, True)
    for wanted in range(3):
        inputs = [tensor.detach().requires_grad_(i == wanted) for i, tensor in enumerate((z, table, scale))]
        loss = catalogue_cross_entropy(inputs[0], inputs[1], target, inputs[2], True)
        (gradient,) = torch.autograd.grad(loss, [inputs[wanted]])
        assert torch.allclose(gradient, expected[1 + wanted], rtol=1e-9, atol=1e-12)
    with torch.no_grad():
        assert not catalogue_cross_entropy(z, table, target, scale).requires_grad


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


@pytest.mark.parametrize("cosine", [False, True])
def test_the_operators_are_registered_as_torch_asks(cosine):
    z, table, target, scale = draw(6, 9, dtype=torch.float32)
    torch.library.opcheck(torch.ops.llmgr.catalogue_cross_entropy_forward, (z, table, target, scale, cosine))
    plain = [tensor.detach() for tensor in (z, table, scale)]
    _, lse, factor = torch.ops.llmgr.catalogue_cross_entropy_forward(plain[0], plain[1], target, plain[2], cosine)
    for needs in ((True, True), (True, False), (False, True)):
        arguments = (torch.ones(6), plain[0], plain[1], target, plain[2], lse, factor, cosine, *needs)
        torch.library.opcheck(torch.ops.llmgr.catalogue_cross_entropy_backward, arguments)


def test_torch_compile_sees_through_it():
    z, table, target, scale = draw(6, 9, dtype=torch.float32)
    expected = gradients(catalogue_cross_entropy, z, table, target, scale, True)
    compiled = torch.compile(catalogue_cross_entropy, backend="aot_eager", fullgraph=True)
    found = gradients(compiled, z, table, target, scale, True)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_a_checkpoint_recomputes_it():
    z, table, target, scale = draw(6, 9, dtype=torch.float32)
    expected = gradients(catalogue_cross_entropy, z, table, target, scale, True)
    found = gradients(
        lambda *arguments: checkpoint(catalogue_cross_entropy, *arguments, use_reentrant=False), z, table, target, scale, True
    )
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_autocast_does_not_change_it():
    z, table, target, scale = draw(6, 9, dtype=torch.float32)
    outside = catalogue_cross_entropy(z, table, target, scale)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(catalogue_cross_entropy(z, table, target, scale), outside)


class _Largest(TorchDispatchMode):
    """Bytes of the largest tensor that any operation gave."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("cosine", [False, True])
def test_no_buffer_comes_near_the_size_of_the_logits(cosine):
    sessions, items, dimension = 150, 1200, 4
    z, table, target, scale = (tensor.detach() for tensor in draw(sessions, items, dimension, torch.float32))
    with _Largest() as seen:
        losses, lse, factor = catalogue_forward(z, table, target, scale, cosine)
        catalogue_backward(torch.ones_like(losses), z, table, target, scale, lse, factor, cosine, True, True)
    splits, _ = tile_sizes.split_catalogue(sessions, items, tile_sizes.SESSION_GRADIENT["single"][64])
    assert seen.bytes == 4 * max(items, splits * sessions) * dimension
    assert seen.bytes < 4 * sessions * items / 10


@pytest.mark.parametrize("kind", ["half", "single", "single_hopper"])
@pytest.mark.parametrize("sessions", [1, 512, 8192])
def test_buffers_stay_small_at_ten_million_items(kind, sessions):
    for table in (tile_sizes.FORWARD, tile_sizes.SESSION_GRADIENT):
        for width, tiles in table[kind].items():
            splits, per_split = tile_sizes.split_catalogue(sessions, 10_000_000, tiles)
            assert splits * per_split * tiles.items >= 10_000_000 > (splits - 1) * per_split * tiles.items
            # At most one vector for each row of the tiles that run at a time, or one a session.
            assert splits * sessions * width <= max(tile_sizes.PROGRAMS * tiles.sessions, sessions) * width
