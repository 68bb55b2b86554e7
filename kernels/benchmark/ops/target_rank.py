"""The rank of the target among all items."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from kernels.benchmark.baselines.catalogue import full_scores_rank
from kernels.benchmark.cases import Case, Deviation, Prepared, Setting
from kernels.benchmark.ops.gated_graph import D
from kernels.benchmark.sessions import popular_items
from kernels.benchmark.ways import ways_of
from kernels.target_rank import target_rank

EAGER = "eager, all scores"


def target_rank_cases(setting: Setting) -> Iterator[Case]:
    """B sessions against V items."""
    for num_items, num_sessions in setting.size([(300, 5)], [(12_101, 512)], [(12_101, 512), (1_000_000, 512)]):
        yield Case(
            op="target_rank",
            shape=f"B={num_sessions} V={num_items:,}",
            moved_bytes=(num_items + num_sessions) * D * setting.item_bytes + 16.0 * num_sessions,
            flop=2.0 * num_sessions * num_items * D,
            prepare=partial(_prepare, setting, num_items, num_sessions),
        )


def _prepare(setting: Setting, num_items: int, num_sessions: int) -> Prepared:
    z, table = setting.random(num_sessions, D), setting.random(num_items, D, seed=1)
    target = torch.from_numpy(popular_items(np.random.default_rng(7), num_items, num_sessions)).to(setting.device)
    return Prepared(
        streamed={"z": z, "table": table},
        ways=ways_of(
            setting,
            lambda z, table: target_rank(z, table, target),
            {EAGER: lambda z, table: full_scores_rank(z, table, target)},
            compiled=EAGER,
            takes_bytes=2.0 * num_items * num_sessions * setting.item_bytes,
        ),
        check=_ranks_of(z, table, target, setting.allowed),
    )


def _ranks_of(z: torch.Tensor, table: torch.Tensor, target: torch.Tensor, allowed: Deviation) -> Callable[[Any], Deviation]:
    """By how many items a rank is off, over V, beyond those whose score is the target's but for rounding."""
    lowest, highest = [], []
    wide = table.double()
    for vector, item in zip(z.double(), target.tolist(), strict=True):
        scores = wide @ vector
        slack = allowed.maximum * scores.abs().max()
        lowest.append(1 + (scores > scores[item] + slack).sum())
        # The target itself is among these.
        highest.append((scores > scores[item] - slack).sum())
    least, most = torch.stack(lowest), torch.stack(highest)

    def check(ranks: Any) -> Deviation:
        if ranks.shape != least.shape:
            return Deviation(float("inf"), float("inf"))
        off = ((least - ranks).clamp(min=0) + (ranks - most).clamp(min=0)).double() / len(table)
        return Deviation(float(off.max()), float(off.square().mean().sqrt()))

    return check
