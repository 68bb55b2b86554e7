"""The scoring kernels as an operator of torch: seen through by the compiler, fit for a CUDA graph."""

from __future__ import annotations

import pytest
import torch
from topk_cases import assert_same, problem
from waits_found import WaitsFound

from kernels import score_topk
from kernels.score_topk import launch_plan
from kernels.score_topk.reference import score_topk_reference

pytest.importorskip("triton")
interpreted = pytest.mark.skipif(torch.cuda.is_available(), reason="the interpreter's case; those on a GPU are marked gpu")


@pytest.fixture(autouse=True)
def through_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMGR_KERNELS", "triton")


def flat(case) -> tuple:
    z, table, k, exclude, candidates, additive, rankable = case
    lists = (*(exclude or (None, None)), *(candidates or (None, None)), *(additive or (None, None, None)))
    return (z, table, k, *lists, rankable)


@interpreted
@pytest.mark.parametrize("lists", [{}, {"exclude": True, "additive": True, "rankable": True}, {"candidates": True}])
def test_the_operator_is_one_torch_can_reason_about(lists):
    from kernels.score_topk.triton_path import score_topk_op

    torch.library.opcheck(score_topk_op, flat(problem(11, 2, 40, 3, **lists)))


@interpreted
def test_torch_compile_sees_the_whole_function():
    case = problem(12, 2, 40, 3, exclude=True, additive=True)
    compiled = torch.compile(lambda *args: score_topk(*args), fullgraph=True, backend="aot_eager")
    assert_same(compiled(*case), score_topk_reference(*case))


@interpreted
@pytest.mark.parametrize("lists", [{}, {"exclude": True, "additive": True, "rankable": True}, {"candidates": True}])
@pytest.mark.parametrize("looked_through", [0, 1000])
def test_the_launches_never_wait_for_the_device(lists, looked_through, monkeypatch):
    from kernels.score_topk import forward

    monkeypatch.setattr(launch_plan, "EDITS_LOOKED_THROUGH", looked_through)
    # The interpreter's own doings are not the launcher's.
    for kernel in (
        "block_maxima_kernel",
        "select_blocks_kernel",
        "block_keys_kernel",
        "candidate_keys_kernel",
        "ranking_kernel",
    ):
        monkeypatch.setattr(forward, kernel, Launched())
    case = problem(13, 3, 40, 3, **lists)
    with WaitsFound() as waits:
        forward.launch_score_topk(*case)
    assert waits.seen
    assert waits.found == []


class Launched:
    """Stands in for a kernel."""

    def __getitem__(self, grid):
        return lambda *args, **kwargs: None


@pytest.mark.parametrize("k", [20, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.gpu
def test_on_a_gpu_the_ranking_is_that_of_float64(dtype, k, monkeypatch):
    monkeypatch.setenv("LLMGR_KERNELS", "auto")
    generator = torch.Generator().manual_seed(14)
    z, table = torch.randn(70, 64, generator=generator).to(dtype), torch.randn(100_003, 64, generator=generator).to(dtype)
    ids, scores, lse = (one.cpu() for one in score_topk(z.cuda(), table.cuda(), k))
    exact = z.double() @ table.double().T
    assert torch.allclose(exact.gather(1, ids), exact.topk(k, dim=1).values, rtol=0, atol=1e-5)
    assert torch.equal(scores, exact.gather(1, ids).float())
    assert torch.allclose(lse.double(), exact.logsumexp(dim=1), rtol=0, atol=1e-4)
    assert all(torch.equal(a.cpu(), b) for a, b in zip(score_topk(z.cuda(), table.cuda(), k), (ids, scores, lse), strict=True))
