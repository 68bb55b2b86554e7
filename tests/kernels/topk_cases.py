"""Scoring problems whose every sum is exact, so that results can be compared to the bit."""

from __future__ import annotations

import torch

from kernels import RaggedItems, RaggedScores


def items_of_sessions(generator: torch.Generator, sessions: int, items: int, most: int) -> list[list[int]]:
    lengths = torch.randint(0, most + 1, (sessions,), generator=generator).tolist()
    return [torch.randint(0, items, (length,), generator=generator).tolist() for length in lengths]


def problem(
    seed: int,
    sessions: int,
    items: int,
    k: int,
    width: int = 5,
    *,
    exclude=False,
    candidates=False,
    additive=False,
    rankable=False,
    dtype=torch.float32,
):
    """Small whole numbers, so that ties abound and every sum is exact in any dtype."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randint(-2, 3, (sessions, width), generator=generator).to(dtype)
    table = torch.randint(-2, 3, (items, width), generator=generator).to(dtype)
    lists = [items_of_sessions(generator, sessions, items, most) for most in (9, 40, 11)]
    pairs = [[(item, float(item % 5 - 2)) for item in row] for row in lists[2]]
    return (
        z,
        table,
        k,
        RaggedItems.from_lists(lists[0]) if exclude else None,
        RaggedItems.from_lists(lists[1]) if candidates else None,
        RaggedScores.from_lists(pairs) if additive else None,
        torch.rand(items, generator=generator) < 0.8 if rankable else None,
    )


def assert_same(found, expected) -> None:
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1].float())
    assert torch.allclose(found[2], expected[2].float(), rtol=0, atol=1e-5)
