"""What a device cannot refuse does no harm: targets outside the table, strided index tensors, too much memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kernels import (
    GatedGraphWeights,
    RaggedItems,
    RaggedScores,
    build_session_graph,
    gated_graph_project_into,
    score_topk,
    target_rank,
)
from kernels.dispatch import interpreting
from kernels.score_topk import launch_plan

pytestmark = pytest.mark.skipif(not interpreting(), reason="the interpreter is off: a GPU is here")


@pytest.mark.parametrize("cosine", [False, True])
def test_a_target_outside_the_catalogue_has_no_loss_and_leaves_the_others_alone(cosine: bool) -> None:
    from kernels.catalogue_cross_entropy.triton_path import catalogue_cross_entropy_triton

    torch.manual_seed(0)
    z, table = torch.randn(4, 8), torch.randn(9, 8)
    good = catalogue_cross_entropy_triton(z, table, torch.tensor([1, 2, 3, 4]), 1.0, cosine, "none")
    found = catalogue_cross_entropy_triton(z, table, torch.tensor([1, -100, 9, 4]), 1.0, cosine, "none")
    assert found.isnan().tolist() == [False, True, True, False]
    torch.testing.assert_close(found[[0, 3]], good[[0, 3]])


def test_the_rank_of_a_target_outside_the_catalogue_reads_nothing_from_elsewhere() -> None:
    from kernels.target_rank.triton_path import target_rank_triton

    z, table = torch.randn(3, 8), torch.randn(9, 8)
    found = target_rank_triton(z, table, torch.tensor([-100, 2, 10**9]), True)
    assert found[1] == target_rank_triton(z, table, torch.tensor([0, 2, 0]), True)[1]
    assert ((found >= 1) & (found <= 10)).all()


def test_a_cpu_refuses_a_target_outside_the_catalogue() -> None:
    with pytest.raises(ValueError, match=r"-1\.\.2 outside the 9 items"):
        target_rank(torch.randn(2, 4), torch.randn(9, 4), torch.tensor([2, -1]))


def test_strided_lists_are_read_as_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    z, table = torch.randn(2, 8), torch.randn(40, 8)
    pairs = torch.tensor([[3, 0], [7, 0], [11, 0], [5, 0]])
    values = torch.tensor([[1.0, 9.0], [2.0, 9.0], [3.0, 9.0], [4.0, 9.0]])
    offsets = torch.tensor([[0, 9], [2, 9], [4, 9]])
    strided = RaggedItems(pairs[:, 0], offsets[:, 0])
    whole = RaggedItems(*(part.contiguous() for part in strided))
    extra = RaggedScores(pairs[:, 0].flip(0), values[:, 0], offsets[:, 0])
    monkeypatch.setenv("LLMGR_KERNELS", "torch")
    expected = score_topk(z, table, 5, exclude=whole, additive=RaggedScores(*(part.contiguous() for part in extra)))
    monkeypatch.setenv("LLMGR_KERNELS", "triton")
    ids, scores, lse = score_topk(z, table, 5, exclude=strided, additive=extra)
    assert ids.tolist() == expected[0].tolist()
    torch.testing.assert_close(scores, expected[1])
    torch.testing.assert_close(lse, expected[2])


def test_strided_places_of_a_prompt_are_read_as_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMGR_KERNELS", "triton")
    graph = build_session_graph(np.array([1, 2, 3]), np.array([0, 3])).graph
    nodes, weights, projection = torch.randn(3, 16), GatedGraphWeights.initial(16), torch.randn(24, 16)
    places = torch.tensor([[0, 1], [1, 0], [0, 3]])
    rows, positions = places.unbind(1)
    arguments = (nodes, graph, weights, 1, projection, torch.zeros(2, 4, 24))
    found = gated_graph_project_into(*arguments, rows, positions)
    torch.testing.assert_close(found, gated_graph_project_into(*arguments, rows.contiguous(), positions.contiguous()))


@pytest.mark.parametrize(("k", "items"), [(20, 12_101), (1000, 12_101), (1000, 1_000_000), (100, 10_000_000)])
def test_memory_of_scoring_is_bounded_whatever_k_is(k: int, items: int) -> None:
    plan = launch_plan.catalogue_plan(8192, items, 64, torch.float32, launch_plan.HOPPER)
    blocks = -(-items // plan.block_v)
    sessions = launch_plan.sessions_at_a_time(k, blocks, plan)
    assert sessions % plan.block_b == 0
    held = 8 * sessions * launch_plan.slots_used(k, blocks) * plan.block_v + 4 * sessions * blocks
    assert held <= (512 << 20) + 8 * plan.block_b * (launch_plan.slots_used(k, blocks) * plan.block_v + blocks)
