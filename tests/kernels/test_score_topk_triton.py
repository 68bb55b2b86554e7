"""The scoring kernels, run by Triton's interpreter through the public function."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from session_cases import repeatable
from topk_cases import assert_same, problem

from kernels import RaggedItems, RaggedScores, score_topk
from kernels.score_topk import launch_plan
from kernels.score_topk.reference import score_topk_reference

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the interpreter's cases; those on a GPU are marked gpu")
NUMBERS = st.integers(0, 2**31 - 1)


@pytest.fixture(autouse=True)
def through_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMGR_KERNELS", "triton")


@st.composite
def problems(draw):
    return problem(
        draw(NUMBERS),
        draw(st.integers(0, 3)),
        draw(st.integers(1, 150)),
        draw(st.sampled_from([1, 2, 20, 28])),
        exclude=draw(st.booleans()),
        candidates=draw(st.booleans()),
        additive=draw(st.booleans()),
        rankable=draw(st.booleans()),
        dtype=draw(st.sampled_from([torch.float32, torch.float16])),
    )


@settings(repeatable, max_examples=20)
@given(problems())
def test_ids_scores_and_order_are_the_references(case):
    assert_same(score_topk(*case), score_topk_reference(*case))


def test_many_sessions_meet_only_their_own_edits():
    """Two blocks of sessions; all products are zero, so that every edit counts in the log-sum-exp."""
    z, *others = problem(3, 18, 100, 4, 65, exclude=True, additive=True)
    z = torch.zeros_like(z)
    assert_same(score_topk(z, *others), score_topk_reference(z, *others))


def test_edits_sorted_by_tile_say_the_same_as_edits_looked_through(monkeypatch):
    case = problem(4, 2, 130, 6, exclude=True, additive=True)
    looked_through = score_topk(*case)
    monkeypatch.setattr(launch_plan, "EDITS_LOOKED_THROUGH", 0)
    by_tile = score_topk(*case)
    assert_same(by_tile, score_topk_reference(*case))
    assert all(torch.equal(one, other) for one, other in zip(by_tile, looked_through, strict=True))


@pytest.mark.parametrize("k", [29, 124, 125, 1000])
def test_longer_rankings(k):
    case = problem(k, 1, 400, k, exclude=True, additive=True)
    assert_same(score_topk(*case), score_topk_reference(*case))


def test_longer_rankings_of_candidates():
    case = problem(5, 2, 300, 129, candidates=True, exclude=True)
    assert_same(score_topk(*case), score_topk_reference(*case))


def test_slabs_of_sessions_change_nothing(monkeypatch):
    case = problem(6, 19, 60, 3, exclude=True, additive=True)
    monkeypatch.setattr(launch_plan, "MAXIMA_AT_A_TIME", 1)
    monkeypatch.setattr(launch_plan, "EDITS_LOOKED_THROUGH", 0)
    monkeypatch.setattr(
        launch_plan, "catalogue_plan", lambda *_: launch_plan.CataloguePlan(16, 32, 64, num_warps=4, num_stages=1)
    )
    assert_same(score_topk(*case), score_topk_reference(*case))


@pytest.mark.slow
def test_blocks_are_selected_in_two_levels_where_there_are_many():
    """1,094 blocks, more than a line of the layout holds; the best items stand in blocks of one column."""
    generator = torch.Generator().manual_seed(7)
    items = 70_001
    table = torch.randn(items, 2, generator=generator)
    z = torch.tensor([[1.0, 0.5]])
    places = [3, 3 + 64 * 1024, 64 * 1024, 69_999, 70_000]
    table[places] = torch.tensor([[9.0, 0.0], [9.0, 0.0], [8.0, 2.0], [7.0, 0.0], [6.0, 0.0]])
    ids, scores, lse = score_topk(z, table, 8)
    expected = score_topk_reference(z.double(), table.double(), 8)
    assert_same((ids, scores, lse), expected)
    assert ids[0, :3].tolist() == [3, 64 * 1024, 3 + 64 * 1024]


@pytest.mark.slow
def test_rankings_of_a_thousand_stream_the_block_maxima():
    generator = torch.Generator().manual_seed(8)
    z, table = torch.randn(1, 3, generator=generator), torch.randn(32_800, 3, generator=generator)
    ids, scores, _ = score_topk(z, table, 1000)
    expected = score_topk_reference(z.double(), table.double(), 1000)
    assert torch.equal(scores, expected[1].float())
    assert (ids == expected[0]).float().mean() > 0.99


@pytest.mark.parametrize(
    ("z_dtype", "table_dtype"),
    [
        (torch.float32, torch.float32),
        (torch.float16, torch.float16),
        (torch.float32, torch.float16),
        (torch.float16, torch.float32),
    ],
)
@pytest.mark.parametrize("width", [64, 100])
def test_scores_and_log_sum_exp_are_near_float64(z_dtype, table_dtype, width):
    generator = torch.Generator().manual_seed(9)
    z = torch.randn(3, width, generator=generator).to(z_dtype)
    table = torch.randn(300, width, generator=generator).to(table_dtype)
    ids, scores, lse = score_topk(z, table, 10)
    expected = score_topk_reference(z.double(), table.double(), 10)
    assert torch.equal(ids, expected[0])
    assert scores.dtype == lse.dtype == torch.float32
    for found, exact in ((scores, expected[1]), (lse, expected[2])):
        error = (found.double() - exact).abs()
        assert error.max() <= 1e-6 * exact.abs().max()
        assert error.square().mean().sqrt() <= 1e-6 * exact.square().mean().sqrt()


def test_equal_rows_tie_by_index_wherever_they_stand():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(1, 64, generator=generator)
    table = torch.randn(3000, 64, generator=generator) * 0.01
    places = [0, 1, 17, 63, 64, 1097, 2998, 2999]
    table[places] = z[0] * 0.37
    ids, scores, _ = score_topk(z, table, len(places))
    assert ids[0].tolist() == places
    assert len(set(scores[0].tolist())) == 1


def test_positive_and_negative_zero_are_one_score():
    z, table = torch.tensor([[1e-30]]), torch.tensor([[-1e-30], [0.0], [-1.0], [1e-30]])
    assert score_topk(z, table, 4)[0].tolist() == [[0, 1, 3, 2]]


def test_a_nan_shows_in_the_log_sum_exp_of_its_session_alone():
    z, table = torch.randn(2, 4), torch.randn(50, 4)
    z[1, 0] = float("nan")
    for candidates in (None, RaggedItems.from_lists([[1, 2], [3, 4]])):
        ids, _, lse = score_topk(z, table, 2, candidates=candidates)
        assert lse[0].isfinite()
        assert lse[1].isnan()
        assert (ids[0] >= 0).all()


def test_everything_excluded_is_an_empty_ranking():
    z, table = torch.randn(2, 4), torch.randn(40, 4)
    ids, scores, lse = score_topk(z, table, 3, RaggedItems.from_lists([list(range(40)), []]))
    assert ids[0].tolist() == [-1] * 3
    assert (scores[0] == float("-inf")).all()
    assert lse[0] == float("-inf")
    assert lse[1].isfinite()


def test_an_excluded_item_far_above_the_rest_does_not_blur_the_log_sum_exp():
    z, table = torch.ones(1, 1), torch.zeros(40, 1)
    table[7] = 60.0
    _, scores, lse = score_topk(z, table, 3, RaggedItems.from_lists([[7]]))
    assert scores.tolist() == [[0.0] * 3]
    assert torch.allclose(lse, torch.tensor([39.0]).log(), rtol=1e-6, atol=0)


def test_evidence_lifts_an_item_of_a_poor_block_and_sinks_the_best_of_a_good_one():
    z, table = torch.ones(1, 1), torch.linspace(1.0, 0.0, 200)[:, None]
    additive = RaggedScores.from_lists([[(199, 2.0), (199, 3.0), (0, -50.0)]])
    ids, scores, _ = score_topk(z, table, 2, None, None, additive)
    assert ids.tolist() == [[199, 1]]
    assert scores[0, 0] == 5.0


def test_evidence_that_tf32_cannot_hold_is_in_the_log_sum_exp():
    values = [1.0 + 2.0**-11 + 2.0**-20, -(3.0 + 2.0**-12)]
    additive = RaggedScores.from_lists([[(0, values[0]), (1, values[1])]])
    _, _, lse = score_topk(torch.ones(1, 1), torch.zeros(2, 1), 1, None, None, additive)
    assert torch.allclose(lse.double(), torch.tensor(values).double().logsumexp(0), rtol=0, atol=2e-7)


def test_repeated_candidates_count_once():
    z, table = torch.ones(1, 1), torch.linspace(0.0, 1.0, 9)[:, None]
    ids, _, lse = score_topk(z, table, 4, candidates=RaggedItems.from_lists([[3, 8, 3, 3, 8, 0]]))
    assert ids.tolist() == [[8, 3, 0, -1]]
    assert torch.allclose(lse, table[[0, 3, 8], 0].logsumexp(0), rtol=0, atol=1e-6)


def test_empty_catalogue_empty_batch_and_empty_candidates():
    assert score_topk(torch.zeros(0, 4), torch.randn(5, 4), 3)[0].shape == (0, 3)
    for result in (
        score_topk(torch.randn(2, 4), torch.zeros(0, 4), 3),
        score_topk(torch.randn(2, 4), torch.randn(5, 4), 3, candidates=RaggedItems.from_lists([[], []])),
    ):
        assert result[0].tolist() == [[-1] * 3] * 2
        assert (result[1] == float("-inf")).all()
        assert (result[2] == float("-inf")).all()


def test_results_repeat_to_the_bit_and_do_not_hang_on_the_batch():
    case = problem(10, 3, 100, 6, exclude=True, additive=True)
    z = case[0] * 0.37
    whole, again = score_topk(z, *case[1:]), score_topk(z, *case[1:])
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))
    for b in range(3):
        lists = [None if one is None else one._replace(offsets=one.offsets[b : b + 2]) for one in case[3:6]]
        alone = score_topk(z[b : b + 1], case[1], 6, *lists)
        assert all(torch.equal(a[0], w[b]) for a, w in zip(alone, whole, strict=True))


def test_no_gradient_is_asked_of_it():
    z, table = torch.randn(2, 4, requires_grad=True), torch.randn(30, 4, requires_grad=True)
    assert not score_topk(z, table, 5)[1].requires_grad


@pytest.mark.parametrize(
    ("z", "table", "k", "reason"),
    [
        (torch.zeros(1, 4, dtype=torch.float64), torch.zeros(2, 4, dtype=torch.float64), 1, "float64"),
        (torch.zeros(1, 4), torch.zeros(2, 4), 1001, "k=1001"),
        (torch.zeros(1, 200), torch.zeros(2, 200), 1, "rows of 200"),
    ],
)
def test_what_the_kernels_do_not_take_is_said(z, table, k, reason):
    with pytest.raises(ValueError, match=reason):
        score_topk(z, table, k)


@pytest.mark.slow
@pytest.mark.parametrize(("sessions", "items", "k"), [(130, 700, 20), (20, 3000, 100), (3, 20_000, 20), (2, 1500, 1000)])
def test_larger_shapes(sessions, items, k):
    for lists in ({}, {"exclude": True, "additive": True}, {"candidates": True, "exclude": True}):
        case = problem(sessions, sessions, items, k, 16, **lists)
        assert_same(score_topk(*case), score_topk_reference(*case))
