"""Rows of a table by number: both paths, forward and backward."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from session_cases import relative_error, repeatable

from kernels import item_rows
from kernels.item_rows.reference import item_rows_gradient_reference, item_rows_reference

IDS = st.lists(st.integers(0, 4), max_size=90)
PATHS = pytest.mark.parametrize("path", ["torch", "triton"])


def gradient(table, ids, grad):
    leaf = table.clone().requires_grad_()
    out = item_rows(leaf, ids)
    return torch.autograd.grad(out, leaf, grad)[0]


def draw(num_rows, ids, d=6, dtype=torch.float32):
    generator = torch.Generator().manual_seed(len(ids))
    grad = torch.randn(len(ids), d, dtype=torch.float64, generator=generator).to(dtype)
    return torch.randn(num_rows, d, dtype=torch.float64, generator=generator).to(dtype), torch.tensor(ids).long(), grad


@PATHS
@repeatable
@given(ids=IDS)
def test_values_and_gradients_are_the_references(path, ids):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMGR_KERNELS", path)
        table, numbers, grad = draw(9, ids, dtype=torch.float64)
        assert torch.equal(item_rows(table, numbers), item_rows_reference(table, numbers))
        found = gradient(table, numbers, grad)
    assert relative_error(found, item_rows_gradient_reference(grad, numbers, 9)) < 1e-14


@PATHS
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float16, 1e-3)])
@pytest.mark.parametrize("num_rows", [1, 3, 1000])
def test_runs_that_cross_chunks_are_summed_whole(monkeypatch, path, dtype, tolerance, num_rows):
    monkeypatch.setenv("LLMGR_KERNELS", path)
    ids = (torch.arange(333) ** 2 % num_rows).tolist()
    table, numbers, grad = draw(num_rows, ids, d=67, dtype=dtype)
    found = gradient(table, numbers, grad)
    assert found.dtype == dtype
    assert relative_error(found, item_rows_gradient_reference(grad.double(), numbers, num_rows)) < tolerance


@pytest.mark.slow
def test_one_item_everywhere_needs_several_rounds_of_chunks(monkeypatch):
    monkeypatch.setenv("LLMGR_KERNELS", "triton")
    table, numbers, grad = draw(2, [1] * 5000, d=3)
    found = gradient(table, numbers, grad)
    assert relative_error(found, item_rows_gradient_reference(grad.double(), numbers, 2)) < 1e-5


@PATHS
def test_the_gradient_has_the_same_bits_on_every_run(monkeypatch, path):
    monkeypatch.setenv("LLMGR_KERNELS", path)
    table, numbers, grad = draw(40, torch.randint(0, 40, (300,), generator=torch.Generator().manual_seed(1)).tolist())
    first = gradient(table, numbers, grad)
    assert all(torch.equal(first, gradient(table, numbers, grad)) for _ in range(3))


@PATHS
def test_a_row_nobody_asked_for_gets_zero_and_other_rows_do_not_matter(monkeypatch, path):
    monkeypatch.setenv("LLMGR_KERNELS", path)
    table, numbers, grad = draw(30, [2, 2, 29, 7])
    found = gradient(table, numbers, grad)
    assert torch.equal(found[2], grad[0] + grad[1])
    assert torch.equal(found[29], grad[2])
    rest = torch.ones(30, dtype=torch.bool)
    rest[[2, 29, 7]] = False
    assert not found[rest].any()


@PATHS
def test_the_order_of_the_places_does_not_matter_beyond_rounding(monkeypatch, path):
    monkeypatch.setenv("LLMGR_KERNELS", path)
    table, numbers, grad = draw(5, [i % 5 for i in range(150)], dtype=torch.float64)
    order = torch.randperm(150, generator=torch.Generator().manual_seed(2))
    assert relative_error(gradient(table, numbers[order], grad[order]), gradient(table, numbers, grad)) < 1e-14


@PATHS
def test_gradients_by_finite_differences(monkeypatch, path):
    monkeypatch.setenv("LLMGR_KERNELS", path)
    table, numbers, _ = draw(3, [0, 2, 2, 0, 2], d=2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda t: item_rows(t, numbers).sin(), (table.requires_grad_(),))


@PATHS
def test_torch_compile_sees_through_it(monkeypatch, path):
    monkeypatch.setenv("LLMGR_KERNELS", path)
    table, numbers, _ = draw(5, [0, 3, 3, 4, 1, 1] * 15)
    leaf = table.requires_grad_()
    results = []
    for function in (item_rows, torch.compile(item_rows, backend="aot_eager", fullgraph=True)):
        results.append(torch.autograd.grad(function(leaf, numbers).sin().sum(), leaf)[0])
    assert torch.equal(*results)


def test_the_operators_are_well_formed(monkeypatch):
    monkeypatch.setenv("LLMGR_KERNELS", "triton")
    from kernels.item_rows.triton_path import item_rows_backward, item_rows_forward

    table, numbers, grad = draw(5, [0, 3, 3])
    torch.library.opcheck(item_rows_forward, (table.requires_grad_(), numbers))
    torch.library.opcheck(item_rows_backward, (grad, numbers, 5), test_utils=("test_schema", "test_faketensor"))


@PATHS
def test_checkpointing_changes_nothing(monkeypatch, path):
    monkeypatch.setenv("LLMGR_KERNELS", path)
    table, numbers, _ = draw(5, [0, 3, 3, 1])
    leaf = table.requires_grad_()
    plain = torch.autograd.grad(item_rows(leaf, numbers).sin().sum(), leaf)[0]
    kept = torch.utils.checkpoint.checkpoint(item_rows, leaf, numbers, use_reentrant=False)
    assert torch.equal(torch.autograd.grad(kept.sin().sum(), leaf)[0], plain)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="int64"):
        item_rows(torch.zeros(3, 2), torch.zeros(2, dtype=torch.int32))
    with pytest.raises(IndexError):
        item_rows(torch.zeros(3, 2), torch.tensor([3]))
