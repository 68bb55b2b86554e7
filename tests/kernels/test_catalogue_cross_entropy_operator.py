"""The catalogue cross-entropy's Triton path as torch sees it: operators, what they compute, and what they hold in memory."""

from __future__ import annotations

import pytest
import torch
from catalogue_cases import definition, draw, gradients
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from kernels import catalogue_cross_entropy
from kernels.catalogue_cross_entropy import tile_sizes
from kernels.catalogue_cross_entropy.backward import catalogue_backward
from kernels.catalogue_cross_entropy.forward import catalogue_forward
from kernels.dispatch import interpreting

pytestmark = pytest.mark.skipif(not interpreting(), reason="the interpreter is off: a GPU is here, and its tests run there")


@pytest.fixture(autouse=True)
def triton(monkeypatch):
    monkeypatch.setenv("LLMGR_KERNELS", "triton")


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
