"""Scoring with top-k, and cross-entropy over the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from kernels.benchmark.baselines.catalogue import (
    full_logits_cross_entropy,
    matmul_topk,
    matmul_topk_logsumexp,
    unfolded_matmul_topk,
)
from kernels.benchmark.cases import Case, Deviation, Prepared, Setting, Way, against, deviation, no_check
from kernels.benchmark.ops.gated_graph import D
from kernels.benchmark.sessions import popular_items
from kernels.benchmark.ways import ways_of
from kernels.catalogue_cross_entropy import catalogue_cross_entropy
from kernels.catalogue_cross_entropy.reference import catalogue_cross_entropy_reference
from kernels.score_topk import score_topk

K = 20
UNFOLDED_WIDTHS = (4096, 2048)
# So many sessions are compared with float64 scores; all of them would take longer than the measurement.
CHECKED_SESSIONS = 8
SCALE = 16.0
EAGER = "eager full logits"


def scoring_cases(setting: Setting) -> Iterator[Case]:
    """The best 20 of V items for B sessions, with the log-sum-exp."""
    for num_items, num_sessions in setting.size(
        [(300, 3), (5000, 17)],
        [(12_101, 1), (12_101, 64), (1_000_000, 1)],
        [(items, size) for items in (12_101, 29_454, 1_000_000, 10_000_000) for size in (1, 64, 1024)],
    ):
        yield Case(
            op="score_topk",
            shape=f"B={num_sessions} V={num_items:,}",
            moved_bytes=(num_items + num_sessions) * D * setting.item_bytes + num_sessions * K * 12.0,
            flop=2.0 * num_sessions * num_items * D,
            prepare=partial(_prepare_scoring, setting, num_items, num_sessions),
        )


def cross_entropy_cases(setting: Setting) -> Iterator[Case]:
    """Cosine logits, temperature 1/16; the loss and the gradients of session vectors and table."""
    for num_items, num_sessions in setting.size([(300, 5)], [(12_101, 512), (200_000, 32)], [(12_101, 512), (1_000_000, 512)]):
        item = setting.item_bytes
        yield Case(
            op="catalogue_cross_entropy",
            shape=f"B={num_sessions} V={num_items:,}",
            moved_bytes=2.0 * (num_items + num_sessions) * D * item,
            flop=6.0 * num_sessions * num_items * D,
            prepare=partial(_prepare_cross_entropy, setting, num_items, num_sessions),
        )


def _prepare_scoring(setting: Setting, num_items: int, num_sessions: int) -> Prepared:
    z, table = setting.random(num_sessions, D), setting.random(num_items, D, seed=1)
    score_bytes = 2.0 * num_items * num_sessions * setting.item_bytes
    ways = ways_of(
        setting,
        lambda z, table: score_topk(z, table, K),
        {
            "matmul, topk": lambda z, table: matmul_topk(z, table, K),
            "matmul, topk, logsumexp": lambda z, table: matmul_topk_logsumexp(z, table, K),
        },
        compiled="matmul, topk, logsumexp",
        takes_bytes=score_bytes,
    )
    ways.append(_unfolded(setting, z, table, score_bytes))
    ways.append(Way("a plain read of the table", lambda z, table: table.sum(), captured=True, check=no_check))
    return Prepared({"z": z, "table": table}, ways, best_items(z, table, K))


def _unfolded(setting: Setting, z: torch.Tensor, table: torch.Tensor, score_bytes: float) -> Way:
    """Items D wide whose products with W_p z are those of the folded table: rows t_v W_p^T with W_p^T W_p = 1."""
    widths = UNFOLDED_WIDTHS if setting.scale != "tiny" else (2 * D,)
    fitting = [w for w in widths if len(table) * w * setting.item_bytes + score_bytes <= setting.memory_bytes]
    name = f"unfolded matmul, topk, D={(fitting or widths)[0]}"
    if not fitting:
        return Way(name, lambda: None, missing=f"its table takes {len(table) * widths[-1] * setting.item_bytes / 1e9:.0f} GB")
    generator = torch.Generator().manual_seed(4)
    projection = setting.place(torch.linalg.qr(torch.randn(fitting[0], D, generator=generator)).Q)
    rows = table @ projection.T
    # Its rows were rounded once more than the folded ones.
    return Way(name, lambda z, table: unfolded_matmul_topk(z, rows, projection, K))


def best_items(z: torch.Tensor, table: torch.Tensor, k: int) -> Callable[[Any], Deviation]:
    """Scores, their items and the log-sum-exp of some sessions against float64; any order of (nearly) equal scores is right."""
    checked = torch.linspace(0, len(z) - 1, min(len(z), CHECKED_SESSIONS), device=z.device).long()
    best, lse = [], []
    for b in checked.tolist():
        row = _scores(z[b], table)
        best.append(torch.topk(row, k).values)
        lse.append(torch.logsumexp(row, dim=0))
    expected, expected_lse = torch.stack(best), torch.stack(lse)

    def check(result: Any) -> Deviation:
        ids, scores, *rest = result
        ids, scores = ids[checked], scores[checked]
        if any(len(set(row)) < k for row in ids.tolist()) or not bool(((ids >= 0) & (ids < len(table))).all()):
            return Deviation(float("inf"), float("inf"))
        of_ids = (table[ids].double() * z[checked].double()[:, None]).sum(dim=2)
        return deviation([scores, of_ids, *(one[checked] for one in rest)], [expected, expected, *[expected_lse] * len(rest)])

    return check


def _scores(vector: torch.Tensor, table: torch.Tensor, rows: int = 1 << 20) -> torch.Tensor:
    """float64 [V], a part of the table at a time."""
    return torch.cat([part.double() @ vector.double() for part in torch.split(table, rows)])


def _prepare_cross_entropy(setting: Setting, num_items: int, num_sessions: int) -> Prepared:
    z = setting.random(num_sessions, D).requires_grad_()
    table = setting.random(num_items, D, seed=1).requires_grad_()
    target = torch.from_numpy(popular_items(np.random.default_rng(5), num_items, num_sessions)).to(setting.device)

    def gradients(function: Callable[..., torch.Tensor]) -> Callable[..., Any]:
        def call(z: torch.Tensor, table: torch.Tensor) -> tuple[torch.Tensor, ...]:
            loss = function(z, table)
            return loss.detach(), *torch.autograd.grad(loss, [z, table])

        return call

    return Prepared(
        streamed={"z": z, "table": table},
        ways=ways_of(
            setting,
            lambda z, table: catalogue_cross_entropy(z, table, target, SCALE, cosine=True),
            {EAGER: lambda z, table: full_logits_cross_entropy(z, table, target, SCALE)},
            compiled=EAGER,
            headline=num_sessions == 512,
            gradients=gradients,
            # Logits, their float32 copy, probabilities and their gradient.
            takes_bytes=4.0 * num_items * num_sessions * 4,
        ),
        check=against(_exact_gradients(z, table, target)),
    )


def _exact_gradients(z: torch.Tensor, table: torch.Tensor, target: torch.Tensor) -> list[torch.Tensor]:
    """Loss and gradients by the definition in float64, as many sessions at a time as a gigabyte of logits takes."""
    wide_z, wide_table = z.detach().double().requires_grad_(), table.detach().double().requires_grad_()
    loss = torch.zeros((), dtype=torch.float64, device=z.device)
    for some in torch.split(torch.arange(len(z), device=z.device), max(1, (1 << 27) // len(table))):
        part = catalogue_cross_entropy_reference(wide_z[some], wide_table, target[some], SCALE, cosine=True, reduction="sum")
        (part / len(z)).backward()  # type: ignore[no-untyped-call]
        loss += part.detach() / len(z)
    assert wide_z.grad is not None
    assert wide_table.grad is not None
    return [loss, wide_z.grad, wide_table.grad]
