"""The fixed parts of a ranker: everything about it that inserts and deletions never change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from llmgr_core.ranker.folded_transform import FoldedTransform
from llmgr_core.ranker.scoring import ScoringSettings
from llmgr_core.ranker.tail_text import takes_text

if TYPE_CHECKING:
    from llmgr_core.ranker.text_lenders import TextLenders
    from llmgr_core.transitions import TransitionGraph

SessionVector = Callable[[npt.NDArray[np.float32], npt.NDArray[np.int64]], npt.NDArray[np.float32]]
"""(node vectors float32 [n, d], node of each click int64 [t]) -> z_s float32 [d], the head applied."""


class Transitions(Protocol):
    """Sparse item-to-item scores of one session (``llmgr_core.transitions.TransitionGraph``)."""

    def lookup(self, items: Sequence[int] | npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Items that followed these clicks, each once, ascending, and t(s, v)."""
        ...


@dataclass(frozen=True)
class RankerParts:
    """What a runtime is built from.

    Attributes:
        version: model version, told in every answer.
        item_ids: identifiers of the V items, in index order.
        id_vectors: x_v, float32 [V, d].
        has_id: bool [V]; False for items without a training click, whose x_v means nothing.
        popularity: int64 [V], training clicks; orders the fallback.
        transform: makes rows; None where the ranker uses no text.
        session_vector: the encoder with its head.
        max_clicks: clicks that are encoded; earlier ones only count as seen.
        cosine: compare directions (times ``logit_scale``) rather than plain inner products.
        logit_scale: factor of the logits.
        transitions: the sparse term of the items with training clicks, or None.
        lenders: of whom other items borrow theirs; None where they have none.
        scoring: weight of that term, temperature, default for seen items.
        text_below: items with so many training clicks have no text in their rows; 0: every item has.
    """

    version: str
    item_ids: Sequence[str]
    id_vectors: npt.NDArray[np.float32]
    has_id: npt.NDArray[np.bool_]
    popularity: npt.NDArray[np.int64]
    transform: FoldedTransform | None
    session_vector: SessionVector
    max_clicks: int
    cosine: bool
    logit_scale: float
    transitions: TransitionGraph | None
    scoring: ScoringSettings
    text_below: int = 0
    lenders: TextLenders | None = None

    @property
    def num_items(self) -> int:
        """V, items the ranker was trained with."""
        return len(self.item_ids)

    @property
    def takes_text(self) -> npt.NDArray[np.bool_]:
        """bool [V], items whose rows have a text part where they have a text vector; new items always do."""
        return takes_text(self.popularity, self.text_below)
