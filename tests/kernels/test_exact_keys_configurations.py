"""The compiler gate sees every variant of the exact kernels that a call can launch."""

from __future__ import annotations

from itertools import product

import torch

from kernels.compilation import all_configurations
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
