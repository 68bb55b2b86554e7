"""GC-SAN's self-attention block over ragged sessions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from session_cases import doubles, relative_error, repeatable

from kernels import SessionAttentionWeights, session_attention
from kernels.session_attention.reference import session_attention_reference

D = 4
LENGTHS = st.lists(st.integers(0, 11), max_size=6)


def draw(lengths):
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    rows = torch.randn(int(offsets[-1]), D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return rows.requires_grad_(), offsets, doubles(SessionAttentionWeights.initial(D, 7))


@repeatable
@given(lengths=LENGTHS, heads=st.sampled_from([1, 2]), causal=st.booleans(), last_only=st.booleans())
def test_values_and_gradients_are_the_references(lengths, heads, causal, last_only):
    rows, offsets, weights = draw(lengths)
    results = []
    for function in (session_attention, session_attention_reference):
        out = function(rows, offsets, weights, heads, causal, last_only)
        assert out.shape == (len(lengths) if last_only else len(rows), D)
        results.append([out])
        if len(rows):
            results[-1] += torch.autograd.grad(out.sin().sum(), [rows, *weights], allow_unused=True)
    for found, expected in zip(*results, strict=True):
        assert torch.allclose(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("last_only", [False, True])
def test_gradients_by_finite_differences(causal, last_only):
    rows, offsets, weights = draw([3, 0, 1, 2])
    assert torch.autograd.gradcheck(
        lambda x, *w: session_attention(x, offsets, SessionAttentionWeights(*w), 2, causal, last_only), (rows, *weights)
    )


@pytest.mark.parametrize("causal", [False, True])
def test_the_last_row_alone_is_the_last_row_of_all(causal):
    rows, offsets, weights = draw([1, 5, 2, 60])
    every = session_attention(rows, offsets, weights, 1, causal)
    last = session_attention(rows, offsets, weights, 1, causal, last_only=True)
    assert relative_error(last, every[offsets[1:] - 1]) < 1e-12


def test_a_causal_row_does_not_see_what_follows():
    rows, offsets, weights = draw([6])
    changed = rows.detach().clone()
    changed[4:] += 1
    before, after = (session_attention(x, offsets, weights, 1, causal=True) for x in (rows, changed))
    assert torch.allclose(before[:4], after[:4], rtol=0, atol=1e-13)
    assert not torch.allclose(before[4], after[4])


def test_sessions_do_not_see_each_other_and_results_repeat():
    lengths = [3, 0, 17, 1, 200]
    rows, offsets, weights = draw(lengths)
    whole = session_attention(rows, offsets, weights, 2)
    assert torch.equal(whole, session_attention(rows, offsets, weights, 2))
    for begin, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        alone = session_attention(rows[begin:end], torch.tensor([0, end - begin]), weights, 2)
        assert torch.allclose(alone, whole[begin:end], rtol=0, atol=1e-11)


def test_bad_arguments_are_named():
    rows, offsets, weights = draw([2])
    with pytest.raises(ValueError, match="3 heads"):
        session_attention(rows, offsets, weights, 3)
    with pytest.raises(ValueError, match=r"\[T, 4\]"):
        session_attention(rows[:, :3], offsets, weights)
