"""The self-attention block's kernels, in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from session_cases import doubles, relative_error, repeatable

from kernels import SessionAttentionWeights, session_attention
from kernels.session_attention.reference import session_attention_reference

ODD_LENGTHS = [0, 3, 0, 17, 1, 70, 0, 5, 2, 0]
FORMS = pytest.mark.parametrize(
    ("causal", "last_only"), [(False, False), (True, False), (False, True)], ids=["all rows", "causal", "last row"]
)


@pytest.fixture(autouse=True)
def through_triton(monkeypatch):
    monkeypatch.setenv("LLMGR_KERNELS", "triton")


def draw(lengths, d=6, dtype=torch.float64, spread=1.0):
    """Rows, offsets and weights in ``dtype``."""
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    generator = torch.Generator().manual_seed(len(lengths))
    shaken = doubles(SessionAttentionWeights.initial(d, 2 * d, generator))
    weights = [(spread * w.detach()).to(dtype).requires_grad_() for w in shaken]
    rows = torch.randn(int(offsets[-1]), d, dtype=torch.float64, generator=generator).to(dtype)
    return rows.requires_grad_(), offsets, SessionAttentionWeights(*weights)


def values_and_gradients(function, rows, offsets, weights, *form):
    """The result, and the gradients of rows and weights for a gradient of the result drawn anew from its shape."""
    out = function(rows, offsets, weights, *form)
    grad = torch.randn(out.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5)).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, [rows, *weights], grad)]


def reference(rows, offsets, weights, *form):
    wide = [tensor.detach().double().requires_grad_() for tensor in (rows, *weights)]
    return values_and_gradients(session_attention_reference, wide[0], offsets, SessionAttentionWeights(*wide[1:]), *form)


@settings(repeatable, max_examples=12)
@given(
    lengths=st.lists(st.integers(0, 11), max_size=6),
    heads=st.sampled_from([1, 2, 3]),
    causal=st.booleans(),
    last_only=st.booleans(),
)
def test_values_and_gradients_are_the_references(lengths, heads, causal, last_only):
    rows, offsets, weights = draw(lengths)
    form = (heads, causal, last_only)
    if len(rows) == 0:
        found = session_attention(rows, offsets, weights, *form)
        assert found.shape == (len(lengths) if last_only else 0, 6)
        assert not found.any()
        return
    results = values_and_gradients(session_attention, rows, offsets, weights, *form)
    for found, expected in zip(results, reference(rows, offsets, weights, *form), strict=True):
        assert torch.allclose(found, expected, rtol=1e-10, atol=1e-11)


@FORMS
@pytest.mark.parametrize(("dtype", "largest", "mean"), [(torch.float32, 1e-5, 1e-6), (torch.float16, 6e-3, 2e-3)])
@pytest.mark.parametrize(("d", "heads"), [(64, 1), (66, 3), (96, 1), (128, 1)])
def test_errors_in_narrow_numbers_stay_within_rounding(d, heads, dtype, largest, mean, causal, last_only):
    rows, offsets, weights = draw(ODD_LENGTHS, d, dtype, spread=0.3)
    # Far from the relu's kink, where rounding would switch a unit on or off.
    apart = torch.tensor([-3.0, 3.0]).repeat(d).to(dtype).requires_grad_()
    weights = weights._replace(inner_bias=apart)
    form = (heads, causal, last_only)
    results = values_and_gradients(session_attention, rows, offsets, weights, *form)
    for found, expected in zip(results, reference(rows, offsets, weights, *form), strict=True):
        assert found.dtype == dtype
        assert relative_error(found, expected) < largest
        assert (found.double() - expected).square().mean().sqrt() < mean * expected.square().mean().sqrt()


@FORMS
def test_gradients_by_finite_differences(causal, last_only):
    rows, offsets, weights = draw([3, 0, 1], d=4)

    def block(x, maps, biases):
        chosen = weights._replace(query_key_value=maps, query_key_value_bias=biases)
        return session_attention(x, offsets, chosen, 2, causal, last_only)

    # The weights of the kernels only, and all rows against a random direction: entry by entry that takes a minute.
    inputs = (rows, weights.query_key_value, weights.query_key_value_bias)
    assert torch.autograd.gradcheck(block, inputs, fast_mode=not last_only)


@FORMS
def test_scores_far_apart_neither_overflow_nor_vanish(causal, last_only):
    rows, offsets, weights = draw([40, 7], 16, torch.float32)
    weights = weights._replace(query_key_value=(weights.query_key_value.detach() * 40).requires_grad_())
    results = values_and_gradients(session_attention, rows, offsets, weights, 1, causal, last_only)
    for found, expected in zip(results[:2], reference(rows, offsets, weights, 1, causal, last_only)[:2], strict=True):
        assert relative_error(found, expected) < 1e-3


@FORMS
def test_a_session_does_not_depend_on_its_place_in_the_batch(causal, last_only):
    lengths = [3, 0, 40, 1, 9, 25, 2, *[4] * 15]
    order = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(3)).tolist()
    rows, offsets, weights = draw(lengths)
    bounds = offsets.tolist()
    places = torch.cat([torch.arange(bounds[s], bounds[s + 1]) for s in order])
    moved = torch.tensor([0, *[lengths[s] for s in order]]).cumsum(0)
    here = session_attention(rows, offsets, weights, 2, causal, last_only)
    there = session_attention(rows[places], moved, weights, 2, causal, last_only)
    assert torch.allclose(there, here[order] if last_only else here[places], rtol=1e-12, atol=1e-12)


@FORMS
def test_a_session_alone_reads_the_same(causal, last_only):
    rows, offsets, weights = draw(ODD_LENGTHS)
    whole = session_attention(rows, offsets, weights, 2, causal, last_only)
    for number, (begin, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        alone = session_attention(rows[begin:end], torch.tensor([0, end - begin]), weights, 2, causal, last_only)
        assert torch.allclose(alone, whole[number : number + 1] if last_only else whole[begin:end], rtol=0, atol=1e-12)


def test_a_causal_row_does_not_see_what_follows():
    rows, offsets, weights = draw([6, 3])
    changed = rows.detach().clone()
    changed[4:] += 1
    before, after = (session_attention(x, offsets, weights, 1, causal=True) for x in (rows, changed))
    assert torch.equal(before[:4], after[:4])
    assert not torch.allclose(before[4], after[4])


@FORMS
def test_every_run_gives_the_same_bits(causal, last_only):
    drawn = draw(ODD_LENGTHS, 16, torch.float32)
    first, second = (values_and_gradients(session_attention, *drawn, 1, causal, last_only) for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))


def test_the_operators_are_well_formed():
    from kernels.session_attention import triton_path

    rows, offsets, weights = draw([2, 0, 1], 4, torch.float32)
    maps, biases = weights.query_key_value, weights.query_key_value_bias
    torch.library.opcheck(triton_path.last_forward, (rows, offsets, maps, biases, 2))
    begins, ends = torch.tensor([0, 0, 2]), torch.tensor([2, 2, 3])
    projected = torch.randn(3, 12, requires_grad=True)
    torch.library.opcheck(triton_path.attention_forward, (projected, begins, ends, 2, True))

    schema = {"test_utils": ("test_schema", "test_faketensor")}
    plain = (rows.detach(), offsets, maps.detach(), biases.detach())
    _, *kept = triton_path.last_forward(*plain, 2)
    torch.library.opcheck(triton_path.last_backward, (torch.ones(3, 4), torch.ones(3, 4), *plain, *kept), **schema)
    bounded = (projected.detach(), begins, ends)
    kept = triton_path.attention_forward(*bounded, 2, True)
    torch.library.opcheck(triton_path.attention_backward, (torch.ones(3, 4), *bounded, *kept, True), **schema)


@FORMS
def test_torch_compile_and_checkpointing_see_through_it(causal, last_only):
    drawn = draw([2, 0, 1], 4)
    form = (2, causal, last_only)
    plain = values_and_gradients(session_attention, *drawn, *form)

    def checkpointed(*arguments):
        return torch.utils.checkpoint.checkpoint(session_attention, *arguments, use_reentrant=False)

    compiled = torch.compile(session_attention, backend="aot_eager", fullgraph=True)
    for function in (compiled, checkpointed):
        found = values_and_gradients(function, *drawn, *form)
        assert all(torch.allclose(*pair, rtol=1e-13, atol=1e-14) for pair in zip(found, plain, strict=True))


def test_the_last_row_of_wide_vectors_or_many_heads_is_refused():
    rows, offsets, weights = draw([2], 132)
    with pytest.raises(ValueError, match="132 columns"):
        session_attention(rows, offsets, weights, 2, last_only=True)
    with pytest.raises(ValueError, match="17 heads"):
        session_attention(*draw([2], 34), 17, last_only=True)
