"""Holding items out of training, so that they can play the brand-new ones."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from llmgr_core.data.split import Split
from llmgr_core.sessions import Examples, Sessions


def draw_heldout_items(clicked: npt.NDArray[np.bool_], share: float, seed: int) -> npt.NDArray[np.int8]:
    """int8 [V]: 0 warm, 1 held out for validation, 2 held out for the test; the last two are equally many.

    Args:
        clicked: bool [V]; only items with clicks are drawn, the others are never seen in training anyway.
        share: share of those that is held out.
        seed: of the draw.
    """
    role = np.zeros(len(clicked), dtype=np.int8)
    candidates = np.flatnonzero(clicked)
    drawn = np.random.default_rng(seed).permutation(candidates)[: round(len(candidates) * share)]
    half = len(drawn) // 2
    role[drawn[:half]] = 1
    role[drawn[half:]] = 2
    return role


def hold_out(split: Split, role: npt.NDArray[np.int8]) -> Split:
    """Remove held-out items from training sessions and from every prefix, and sort examples by their target's role.

    Examples left without any click in their prefix are dropped.

    Args:
        split: a split that knows nothing of held-out items.
        role: from draw_heldout_items.
    """
    warm = role == 0
    train, kept = _without(split.train, warm)
    items, before = _clicks_before(split.evaluation_items, warm)

    def moved(examples: Examples) -> Examples:
        starts, ends = before[examples.starts], before[examples.ends]
        shifted = Examples(items, starts, ends, examples.targets, examples.sessions)
        return shifted.select(ends > starts)

    validation, test = moved(split.validation), moved(split.test)
    return Split(
        train,
        split.train_sessions[kept],
        validation.select(role[validation.targets] == 0),
        test.select(role[test.targets] == 0),
        _with_target(validation, test, role, 1),
        _with_target(validation, test, role, 2),
    )


def _without(sessions: Sessions, warm: npt.NDArray[np.bool_]) -> tuple[Sessions, npt.NDArray[np.int64]]:
    items, before = _clicks_before(sessions.items, warm)
    bounds = before[sessions.offsets]
    kept = np.flatnonzero(np.diff(bounds) > 0).astype(np.int64)
    return Sessions(items, np.concatenate([[0], bounds[kept + 1]]).astype(np.int64)), kept


def _clicks_before(
    items: npt.NDArray[np.int32], warm: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """The warm clicks, and int64 [T + 1] how many of them stand before each old place."""
    stays = warm[items]
    before = np.zeros(len(items) + 1, dtype=np.int64)
    np.cumsum(stays, out=before[1:])
    return items[stays], before


def _with_target(validation: Examples, test: Examples, role: npt.NDArray[np.int8], wanted: int) -> Examples:
    parts = [examples.select(role[examples.targets] == wanted) for examples in (validation, test)]
    return Examples(
        validation.items,
        np.concatenate([part.starts for part in parts]),
        np.concatenate([part.ends for part in parts]),
        np.concatenate([part.targets for part in parts]),
        np.concatenate([part.sessions for part in parts]),
    )
