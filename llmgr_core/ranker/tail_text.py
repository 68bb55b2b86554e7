"""Text for rarely clicked items only: where clicks say enough, an item is ranked by its ID."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def takes_text(clicks: npt.NDArray[np.integer], below: int) -> npt.NDArray[np.bool_]:
    """Which items have a text part in their rows: those with fewer than ``below`` training clicks, so that new ones always do.

    Args:
        clicks: int [V], training clicks.
        below: the threshold; 0 gives every item its text.

    Returns:
        bool [V].
    """
    return clicks < below if below else np.ones(len(clicks), dtype=np.bool_)
