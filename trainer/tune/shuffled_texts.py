"""Texts dealt out to the wrong items: what stage 1 teaches must go with them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from llmgr_core.errors import InputError


def items_of_other_texts(
    items: npt.NDArray[np.int64], texts: Sequence[str | None], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """For each item the one whose text it is shown with: a permutation that leaves no item its own text, nor one equal to it.

    Items with equal texts stand together in an otherwise random order; each takes the text of the one so many places further
    as the largest of those groups has members.

    Args:
        items: int64 [n], with texts.
        texts: of all items.

    Returns:
        int64 [n].

    Raises:
        InputError: more than half of the items have one text.
    """
    codes: dict[str | None, int] = {}
    group = np.array([codes.setdefault(texts[item], len(codes)) for item in items], dtype=np.int64)
    largest = int(np.bincount(group).max())
    if 2 * largest > len(items):
        raise InputError(
            f"{largest} of {len(items)} items have the same text, so that not each can have another's",
            'set tune.stage1_texts to "own"',
        )
    shuffled_group = rng.permutation(len(codes))[group]
    order = np.lexsort((rng.random(len(items)), shuffled_group))
    shown = np.empty_like(items)
    shown[order] = items[np.roll(order, -largest)]
    return shown
