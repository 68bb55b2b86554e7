"""Cross-entropy over the catalogue equals the one through a full logit matrix, in value and gradient."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from session_cases import relative_error, repeatable

from kernels import catalogue_cross_entropy
from kernels.catalogue_cross_entropy import softmax_pass
from kernels.catalogue_cross_entropy.reference import catalogue_cross_entropy_reference


def draw(sessions, items, size=1.0):
    generator = torch.Generator().manual_seed(sessions * 1000 + items)
    z = size * torch.randn(sessions, 4, dtype=torch.float64, generator=generator)
    table = torch.randn(items, 4, dtype=torch.float64, generator=generator)
    target = torch.randint(0, items, (sessions,), generator=generator)
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    return z.requires_grad_(), table.requires_grad_(), target, scale


@pytest.fixture(params=["rows", "columns"])
def chunked(request, monkeypatch):
    """Either way of cutting, with chunks so small that several are needed."""
    if request.param == "columns":
        monkeypatch.setattr(softmax_pass, "WHOLE_ROW_ITEMS", 1)
    monkeypatch.setattr(softmax_pass, "CHUNK_LOGITS", 64)
    return request.param


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("size", [1.0, 80.0])
@pytest.mark.parametrize(("sessions", "items"), [(1, 1), (3, 700), (50, 37)])
def test_values_and_gradients_are_the_references(chunked, reduction, cosine, size, sessions, items):
    z, table, target, scale = draw(sessions, items, size)
    pull = torch.linspace(-1, 2, sessions, dtype=torch.float64)
    results = []
    for function in (catalogue_cross_entropy, catalogue_cross_entropy_reference):
        loss = function(z, table, target, scale, cosine, reduction)
        results.append([loss, *torch.autograd.grad((loss * pull).sum(), [z, table, scale])])
    for found, expected in zip(*results, strict=True):
        assert torch.allclose(found, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_gradients_by_finite_differences(chunked, cosine, reduction):
    z, table, target, scale = draw(6, 9)
    assert torch.autograd.gradcheck(
        lambda *t: catalogue_cross_entropy(t[0], t[1], target, t[2], cosine, reduction), (z, table, scale)
    )


@repeatable
@given(sessions=st.integers(1, 40), items=st.integers(1, 60), scale=st.floats(0.1, 100))
def test_single_precision_stays_close(sessions, items, scale):
    z, table, target, _ = draw(sessions, items)
    single_z, single_table = z.detach().float().requires_grad_(), table.detach().float().requires_grad_()
    found = catalogue_cross_entropy(single_z, single_table, target, scale, cosine=True)
    expected = catalogue_cross_entropy_reference(z, table, target, scale, cosine=True)
    assert abs(float(found) - float(expected)) <= 2e-6 * (1 + scale)
    found.backward()
    expected.backward()
    for single, double in ((single_z, z), (single_table, table)):
        assert torch.allclose(single.grad.double(), double.grad, rtol=1e-3, atol=1e-5 * scale)


def test_only_what_is_asked_for_is_computed_and_runs_repeat():
    z, table, target, _ = draw(20, 30)
    frozen = table.detach()
    grads = []
    for items in (table, frozen, table):
        z.grad = None
        catalogue_cross_entropy(z, items, target).backward()
        grads.append(z.grad)
    assert torch.equal(grads[0], grads[2])
    assert relative_error(grads[1], grads[0]) < 1e-14
    with torch.no_grad():
        assert not catalogue_cross_entropy(z, table, target).requires_grad


def test_the_loss_can_be_scaled_and_added_up():
    z, table, target, _ = draw(5, 8)
    loss = 3 * catalogue_cross_entropy(z, table, target) + catalogue_cross_entropy(z, table, target)
    (total,) = torch.autograd.grad(loss, z)
    (once,) = torch.autograd.grad(catalogue_cross_entropy(z, table, target), z)
    assert relative_error(total, 4 * once) < 1e-13


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype):
    z, table, target, _ = draw(10, 20)
    half_z, half_table = z.detach().to(dtype).requires_grad_(), table.detach().to(dtype)
    loss = catalogue_cross_entropy(half_z, half_table, target)
    expected = catalogue_cross_entropy_reference(half_z.detach().double(), half_table.double(), target)
    assert loss.dtype == torch.float32
    assert abs(float(loss) - float(expected)) < 1e-5
    loss.backward()
    assert half_z.grad.dtype == dtype


def test_autocast_does_not_lower_the_precision():
    z, table, target, _ = draw(10, 20)
    single_z, single_table = z.detach().float().requires_grad_(), table.detach().float().requires_grad_()
    outside = catalogue_cross_entropy(single_z, single_table, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = catalogue_cross_entropy(single_z, single_table, target)
    assert torch.equal(outside, inside)


def test_a_zero_vector_under_cosine_gets_no_gradient():
    z, table, target, _ = draw(3, 8)
    with torch.no_grad():
        z[1] = 0
    catalogue_cross_entropy(z, table, target, 16.0, cosine=True).backward()
    assert not z.grad[1].any()
    assert z.grad.isfinite().all()


def test_nan_and_infinite_vectors_show_in_the_loss():
    z, table, target, _ = draw(3, 8)
    for bad in (float("nan"), float("inf")):
        broken = z.detach().clone()
        broken[1, 2] = bad
        assert not catalogue_cross_entropy(broken, table, target).isfinite()


def test_empty_batches_and_bad_arguments():
    z, table, target, _ = draw(3, 8)
    none = torch.zeros(0, dtype=torch.int64)
    assert catalogue_cross_entropy(z[:0], table, none, reduction="sum") == 0
    assert catalogue_cross_entropy(z[:0], table, none, reduction="none").shape == (0,)
    assert catalogue_cross_entropy(z[:0], table, none).isnan()
    with pytest.raises(ValueError, match="9 "):
        catalogue_cross_entropy(z, table[:5], torch.tensor([0, 9 - 1, 2]).clamp(max=9) + 1)
    with pytest.raises(ValueError, match="'median'"):
        catalogue_cross_entropy(z, table, target, reduction="median")
    with pytest.raises(ValueError, match="do not fit"):
        catalogue_cross_entropy(z, table[:, :2], target)
