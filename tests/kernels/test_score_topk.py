"""The best items of each session, exact and in a fixed order."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from session_cases import repeatable

from kernels import RaggedItems, RaggedScores, score_topk
from kernels.dispatch import chosen_path
from kernels.score_topk import _unsupported, catalogue_pass, one_session, torch_path
from kernels.score_topk.reference import score_topk_reference

NUMBERS = st.integers(0, 2**31 - 1)


@st.composite
def problems(draw):
    """Small whole numbers, so that ties abound and every sum is exact."""
    generator = torch.Generator().manual_seed(draw(NUMBERS))
    sessions, items = draw(st.integers(0, 5)), draw(st.integers(1, 90))

    def some_items():
        lengths = torch.randint(0, 12, (sessions,), generator=generator).tolist()
        return [torch.randint(0, items, (length,), generator=generator).tolist() for length in lengths]

    z = torch.randint(-2, 3, (sessions, 3), generator=generator).float()
    table = torch.randint(-2, 3, (items, 3), generator=generator).float()
    exclude = RaggedItems.from_lists(some_items()) if draw(st.booleans()) else None
    candidates = RaggedItems.from_lists(some_items()) if draw(st.booleans()) else None
    pairs = [[(item, float(item % 5 - 2)) for item in row] for row in some_items()]
    additive = RaggedScores.from_lists(pairs) if draw(st.booleans()) else None
    rankable = torch.rand(items, generator=generator) < 0.8 if draw(st.booleans()) else None
    return z, table, draw(st.integers(1, 100)), exclude, candidates, additive, rankable


def assert_same(found, expected):
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1].double(), expected[1].double())
    assert torch.allclose(found[2].double(), expected[2].double(), rtol=0, atol=1e-5)


@repeatable
@given(problems())
def test_ids_scores_and_order_are_the_references(problem):
    assert_same(score_topk(*problem), score_topk_reference(*problem))


@repeatable
@given(problems())
def test_cutting_the_catalogue_and_the_sessions_changes_nothing(problem):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue_pass, "SMALLEST_CHUNK", 7)
        patch.setattr(catalogue_pass, "CHUNK_ITEMS", 7)
        patch.setattr(torch_path, "SLAB_SESSIONS", 2)
        patch.setattr(one_session, "CHUNK_ITEMS", 7)
        patch.setattr(one_session, "ITEMS_PER_THREAD", 20)
        patch.setattr(torch, "get_num_threads", lambda: 3)
        assert_same(score_topk(*problem), score_topk_reference(*problem))


@pytest.mark.parametrize(
    ("sessions", "items", "k"), [(1, 5000, 20), (1, 70_001, 20), (1, 30, 30), (3, 70_001, 20), (130, 1500, 5), (2, 3000, 1000)]
)
def test_real_vectors_give_the_float64_ranking(sessions, items, k):
    generator = torch.Generator().manual_seed(items)
    z = torch.randn(sessions, 16, generator=generator)
    table = torch.randn(items, 16, generator=generator)
    ids, scores, lse = score_topk(z, table, k)
    exact = z.double() @ table.double().T
    assert torch.allclose(torch.gather(exact, 1, ids), exact.topk(k, dim=1).values, rtol=0, atol=1e-6)
    assert torch.allclose(scores.double(), torch.gather(exact, 1, ids), rtol=1e-6, atol=1e-6)
    assert torch.allclose(lse.double(), torch.logsumexp(exact, dim=1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("items", [70_003, 65_000])
def test_equal_rows_tie_by_index_wherever_they_stand(items):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(1, 64, generator=generator)
    best = z[0] * 0.37
    table = torch.randn(items, 64, generator=generator) * 0.01
    places = [0, 1, 17, 63, 64, 4097, 64_997, items - 2, items - 1]
    table[places] = best
    ids, scores, _ = score_topk(z, table, len(places))
    assert ids[0].tolist() == places
    assert len(set(scores[0].tolist())) == 1


def test_probabilities_add_up_over_all_eligible_items():
    generator = torch.Generator().manual_seed(1)
    z, table = torch.randn(4, 8, generator=generator), torch.randn(50, 8, generator=generator)
    exclude = RaggedItems.from_lists([[1, 2, 3], [], list(range(50)), [7, 7]])
    ids, scores, lse = score_topk(z, table, 50, exclude)
    sums = torch.exp(scores - lse[:, None]).nan_to_num(0).sum(dim=1)
    assert torch.allclose(sums[[0, 1, 3]], torch.ones(3), atol=1e-5)
    assert ids[2].tolist() == [-1] * 50
    assert lse[2] == float("-inf")
    assert not set(ids[0].tolist()) & {1, 2, 3}
    assert (ids >= 0).sum(dim=1).tolist() == [47, 50, 0, 49]


def test_exclusion_goes_before_candidacy_and_no_candidates_means_none():
    z, table = torch.ones(2, 1), torch.arange(5.0)[:, None]
    ids, _, _ = score_topk(z, table, 3, RaggedItems.from_lists([[4], []]), RaggedItems.from_lists([[4, 2, 2, 0], []]))
    assert ids.tolist() == [[2, 0, -1], [-1, -1, -1]]


def test_list_entries_outside_the_offsets_belong_to_no_session():
    z, table = torch.ones(1, 1), torch.arange(5.0)[:, None]
    exclude, candidates = RaggedItems.from_lists([[4], [3], [2]]), RaggedItems.from_lists([[0], [1, 3, 2], [4]])
    middle = [one._replace(offsets=one.offsets[1:3]) for one in (exclude, candidates)]
    additive = RaggedScores.from_lists([[(0, 9.0)], [(1, 7.0)], [(2, 9.0)]])
    additive = additive._replace(offsets=additive.offsets[1:3])
    assert score_topk(z, table, 3, middle[0], None, additive)[0].tolist() == [[1, 4, 2]]
    assert score_topk(z, table, 3, middle[0], middle[1], additive)[0].tolist() == [[1, 2, -1]]


def test_evidence_can_lift_any_item_and_does_not_bring_back_an_excluded_one():
    z, table = torch.ones(1, 1), torch.arange(5.0)[:, None]
    additive = RaggedScores.from_lists([[(0, 50.0), (0, 50.0), (1, 1000.0)]])
    ids, scores, _ = score_topk(z, table, 2, RaggedItems.from_lists([[1]]), None, additive)
    assert ids.tolist() == [[0, 4]]
    assert scores.tolist() == [[100.0, 4.0]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_tables_of_other_precision(dtype):
    generator = torch.Generator().manual_seed(2)
    z, table = torch.randn(3, 8, generator=generator), torch.randn(400, 8, generator=generator).to(dtype)
    ids, scores, _ = score_topk(z, table, 10)
    expected = score_topk_reference(z.double(), table.double(), 10)
    assert torch.equal(ids, expected[0])
    assert scores.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_a_nan_shows_in_the_log_sum_exp_of_one_session():
    z, table = torch.full((1, 4), float("nan")), torch.randn(100, 4)
    assert score_topk(z, table, 5)[2].isnan().all()


def test_a_nan_shows_in_the_log_sum_exp():
    z, table = torch.randn(2, 4), torch.randn(100, 4)
    z[1, 0] = float("nan")
    _, _, lse = score_topk(z, table, 5)
    assert lse[0].isfinite()
    assert lse[1].isnan()


@pytest.mark.parametrize("path", ["torch", "triton"])
@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), -1e30])
@pytest.mark.parametrize("sessions", [1, 2])
def test_an_additive_score_without_bounds_is_refused(monkeypatch, path, value, sessions):
    monkeypatch.setenv("LLMGR_KERNELS", path)
    z, table = torch.ones(sessions, 2), torch.ones(5, 2)
    additive = RaggedScores.from_lists([[(1, 2.0), (3, value)], []][:sessions])
    with pytest.raises(ValueError, match=re.escape(f"additive holds {value:g};")):
        score_topk(z, table, 2, additive=additive)


def test_what_the_kernels_do_not_take_goes_to_torch():
    z = torch.zeros(1, 4)
    wide = torch.zeros(5, 4, dtype=torch.float64)
    assert "float32 x torch.float64" in _unsupported(z, wide, 1)
    assert "float64 x torch.float32" in _unsupported(wide[:1], z, 1)
    assert _unsupported(z, wide.half(), 1) == ""
    # The main input is what a path is chosen by; auto on a GPU and triton differ in what becomes of the reason.
    on_gpu = SimpleNamespace(is_cuda=True, dtype=z.dtype, device="cuda")
    with pytest.warns(RuntimeWarning, match="float64: a score"):
        assert chosen_path("score_topk of two dtypes", ("torch", "triton"), on_gpu, _unsupported(z, wide, 1)) == "torch"
    assert chosen_path("score_topk", ("torch", "triton"), on_gpu, _unsupported(z, wide.half(), 1)) == "triton"


def test_results_repeat_and_need_no_gradient():
    z, table = torch.randn(9, 4, requires_grad=True), torch.randn(300, 4, requires_grad=True)
    first, second = score_topk(z, table, 5), score_topk(z, table, 5)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not first[1].requires_grad


def test_empty_catalogue_and_empty_batch():
    ids, scores, lse = score_topk(torch.randn(2, 4), torch.zeros(0, 4), 3)
    assert ids.tolist() == [[-1] * 3] * 2
    assert (scores == float("-inf")).all()
    assert (lse == float("-inf")).all()
    assert score_topk(torch.zeros(0, 4), torch.randn(5, 4), 3)[0].shape == (0, 3)


def test_bad_arguments_are_named():
    z, table = torch.randn(2, 4), torch.randn(5, 4)
    with pytest.raises(ValueError, match="k=0"):
        score_topk(z, table, 0)
    with pytest.raises(ValueError, match=r"candidates holds items 0\.\.5"):
        score_topk(z, table, 1, candidates=RaggedItems.from_lists([[5], [0]]))
    with pytest.raises(ValueError, match="exclude has offsets for 1"):
        score_topk(z, table, 1, exclude=RaggedItems.from_lists([[1]]))
    with pytest.raises(ValueError, match="do not fit"):
        score_topk(z, table[:, :3], 1)
    with pytest.raises(ValueError, match="rankable"):
        score_topk(z, table, 1, rankable=torch.ones(4, dtype=torch.bool))
