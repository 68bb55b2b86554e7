"""The compiler gate sees every variant of the exact kernels that a call can launch."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from topk_cases import problem

from kernels.compilation import all_configurations
from kernels.dispatch import DTYPES
from kernels.score_topk import launch_plan


def test_every_block_size_and_width_is_listed() -> None:
    calls = product((1, 64, 1024), (12_101, 1_000_000), (64, 128), (torch.float32, torch.float16, torch.bfloat16), (80, 90))
    plans = [launch_plan.catalogue_plan(*call) for call in calls]
    listed = [one for one in all_configurations() if one.kernel.__name__ == "block_keys_kernel"]
    for z_type, table_type in (("fp32", "fp32"), ("fp16", "fp16"), ("bf16", "bf16"), ("fp32", "fp16"), ("fp32", "bf16")):
        of_types = [one for one in listed if (one.types["z_ptr"], one.types["table_ptr"]) == (f"*{z_type}", f"*{table_type}")]
        for edited in (False, True):
            sizes = [one.constants for one in of_types if one.constants["HAS_EXCLUDE"] is edited]
            found = {(size["BLOCK_V"], size["D"]) for size in sizes}
            assert found >= {(plan.block_v, plan.block_d) for plan in plans}


SHORT = {dtype: name for name, dtype in DTYPES.items()}
KERNELS = ("block_maxima_kernel", "select_blocks_kernel", "block_keys_kernel", "candidate_keys_kernel", "ranking_kernel")


@pytest.mark.parametrize("width", [64, 128])
@pytest.mark.parametrize(("z_dtype", "table_dtype"), list(product(SHORT, SHORT)))
def test_what_is_launched_is_listed_for_any_two_dtypes(z_dtype, table_dtype, width, monkeypatch):
    forward = pytest.importorskip("kernels.score_topk.forward")
    launched = []
    for name in KERNELS:
        monkeypatch.setattr(forward, name, Recorder(name, launched))
    edits = {"exclude": True, "additive": True, "rankable": True}
    for lists in ({}, edits, {"candidates": True}, {"candidates": True, **edits}):
        z, *others = problem(1, 3, 40, 3, width, **lists, dtype=table_dtype)
        forward.launch_score_topk(z.to(z_dtype), *others)
    listed = [one for one in all_configurations() if one.name.startswith("score_topk")]
    exact = [one for one in launched if one[0] in ("block_keys_kernel", "candidate_keys_kernel")]
    assert len(exact) == 4
    for name, types, constants, num_warps in exact:
        same = [one for one in listed if one.kernel.__name__ == name and one.num_warps == num_warps]
        same = [one for one in same if (one.types["z_ptr"], one.types["table_ptr"]) == types]
        assert any(constants.items() <= one.constants.items() for one in same), (name, types, constants)


class Recorder:
    """Stands in for a kernel and notes how it is launched."""

    def __init__(self, name, launched):
        self.name, self.launched = name, launched

    def __getitem__(self, grid):
        def launch(*args, num_warps, num_stages=None, **constants):
            types = tuple(f"*{SHORT[one.dtype]}" for one in args[:2] if one is not None and one.dtype in SHORT)
            self.launched.append((self.name, types, constants, num_warps))

        return launch
