"""Batches that hold every odd shape, and how far two results are apart."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st

from kernels.session_graph import ClickNodes, build_session_graph

# Applied test by test: other rooms have settings of their own.
repeatable = settings(deadline=None, max_examples=40, derandomize=True)

# Few items, so that repeats and self-loops are common; empty sessions included.
SESSIONS = st.lists(st.lists(st.integers(0, 5), max_size=9), max_size=7)

ODD_SESSIONS = [[], [3], [2, 2, 2], [0, 1, 0, 1, 2], list(range(40)), [], [5, 6], [i % 37 for i in range(200)], []]


def build(sessions: list[list[int]]) -> ClickNodes:
    """The graphs of plain lists."""
    items = np.array([item for session in sessions for item in session], dtype=np.int64)
    return build_session_graph(items, np.cumsum([0] + [len(session) for session in sessions]))


def doubles(weights: tuple[torch.Tensor, ...], seed: int = 0) -> tuple[torch.Tensor, ...]:
    """The same weights in float64, shaken so that nothing is zero or one, asking for gradients."""
    generator = torch.Generator().manual_seed(seed)
    shaken = [w.double() + 0.3 * torch.randn(w.shape, dtype=torch.float64, generator=generator) for w in weights]
    return type(weights)(*[w.requires_grad_() for w in shaken])  # type: ignore[call-arg]


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest deviation over the largest expected value; infinite if either holds a NaN the other has not."""
    if found.shape != expected.shape or found.isnan().any() or expected.isnan().any():
        return float("inf")
    if found.numel() == 0:
        return 0.0
    scale = max(float(expected.detach().abs().max()), 1e-30)
    return float((found.detach().double() - expected.detach().double()).abs().max()) / scale
