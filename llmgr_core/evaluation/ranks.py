"""The rank of each target among all items."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from llmgr_core.sessions import Sessions


class NaNScoreError(ValueError):
    """A score is not a number.

    Attributes:
        example: row of the scores.
    """

    def __init__(self, example: int) -> None:
        super().__init__(f"a scorer returned NaN (example {example} of the batch)")
        self.example = example


def expected_ranks(
    scores: Tensor, targets: npt.NDArray[np.integer], seen: Sessions
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Rank of each target if ties were broken by chance: 1 + (items above) + (other items level) / 2.

    Args:
        scores: float [B, V], higher is better; minus infinity for what cannot be recommended.
        targets: int [B].
        seen: the whole prefix of each example, B sessions.

    Returns:
        masked, unmasked: float32 [B] each. Masked leaves the items of the prefix out of the ranking; a target that is
        itself among them can then not be found and gets rank V + 1.

    Raises:
        NaNScoreError: a score is NaN.
        ValueError: the shapes do not fit.
    """
    batch, num_items = scores.shape
    if len(targets) != batch or len(seen) != batch:
        raise ValueError(f"{batch} rows of scores, {len(targets)} targets, {len(seen)} prefixes")
    target = torch.from_numpy(targets.astype(np.int64))
    target_score = scores[torch.arange(batch), target]
    column = target_score[:, None]
    above = (scores > column).sum(dim=1).numpy()
    level = (scores == column).sum(dim=1).numpy() - 1
    if torch.isnan(scores.sum()) and torch.isnan(scores).any():
        raise NaNScoreError(int(torch.isnan(scores).any(dim=1).nonzero()[0]))

    row = np.repeat(np.arange(batch, dtype=np.int64), seen.lengths)
    pairs = np.unique(row * num_items + seen.items)
    row, item = np.divmod(pairs, num_items)
    seen_score = scores[torch.from_numpy(row), torch.from_numpy(item)].numpy()
    reached = target_score.numpy()[row]
    seen_above = np.bincount(row, weights=seen_score > reached, minlength=batch)
    own = item == targets[row]
    seen_level = np.bincount(row, weights=(seen_score == reached) & ~own, minlength=batch)
    unmasked = 1 + above + level / 2
    masked = 1 + (above - seen_above) + (level - seen_level) / 2
    masked[row[own]] = num_items + 1
    return masked.astype(np.float32), unmasked.astype(np.float32)
