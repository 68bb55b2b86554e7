"""Everything that carried the top items of one session."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llmgr_core.errors import InputError
from llmgr_core.explanation.attention import Attention, AttentionReader
from llmgr_core.explanation.click_evidence import transition_shares
from llmgr_core.explanation.occlusion import Occlusion, Placement, occlude_clicks, place, rank_all
from llmgr_core.explanation.score_parts import ScoreParts, average_parts, score_parts
from llmgr_core.ranker.snapshot import UNKNOWN, Snapshot

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SessionExplanation:
    """A ranking of one session and what it came from. t clicks, m explained items.

    Attributes:
        clicks: int64 [t], in click order.
        read: bool [t], clicks that the encoder reads: among its last ``max_clicks``, of an item that has a row.
        items: int64 [m], the best first; items asked for by name come after them.
        placement: their scores, probabilities and ranks.
        parts: of each score; None where the ranking is by popularity.
        average: mean parts of all items, [1] each; None where the ranking is by popularity.
        attention: weights float32 of the clicks that are read, in order, or why there are none.
        transition_shares: float32 [t, m], the transition part split between the clicks.
        without: the same items without each click.
    """

    clicks: Indices
    read: npt.NDArray[np.bool_]
    items: Indices
    placement: Placement
    parts: ScoreParts | None
    average: ScoreParts | None
    attention: Attention
    transition_shares: Floats
    without: Occlusion

    @property
    def attention_shares(self) -> Floats:
        """float32 [t], NaN for clicks that are not read and where the encoder has no attention."""
        shares = np.full(len(self.clicks), np.nan, dtype=np.float32)
        if self.attention.shares is not None:
            shares[self.read] = self.attention.shares
        return shares

    @property
    def score_drops(self) -> Floats:
        """float32 [t, m]: score less the score without the click; NaN where either ranking is by popularity."""
        drops: Floats = self.placement.scores - self.without.scores
        return drops if self.parts is not None else np.full_like(drops, np.nan)

    def strongest_click(self, number: int) -> int | None:
        """The click whose removal costs item ``number`` the most of its score and makes it fall; None where none does.

        An item that is not ranked cannot fall.
        """
        if not self.placement.ranks[number]:
            return None
        if len(self.clicks) == 1 and self.parts is not None:
            return 0
        drops = np.nan_to_num(self.score_drops[:, number], nan=-np.inf)
        strongest = int(drops.argmax())
        falls = self.without.ranks[strongest, number] > self.placement.ranks[number]
        return strongest if drops[strongest] > 0 and falls else None


def explain_session(
    snapshot: Snapshot, attention: AttentionReader, clicks: Indices, k: int, also: Indices | None = None
) -> SessionExplanation:
    """Explain the k best items after these clicks.

    Args:
        snapshot: one state of the ranker; it ranks as it ranks requests.
        attention: of the same ranker.
        clicks: int64, item indices in click order; -1 (unknown) is left out.
        k: how many items, at least 1.
        also: int64, further items to explain wherever they stand; named twice, shown once.

    Raises:
        InputError: no click is known.
    """
    clicks = clicks[clicks != UNKNOWN]
    if not len(clicks):
        raise InputError("none of the clicked items is known", "without a known click items are ranked by popularity alone")
    nothing = np.zeros(0, dtype=np.int64)
    ranking = rank_all(snapshot, clicks, nothing)
    best = ranking.indices[:k]
    further = nothing if also is None else np.array(list(dict.fromkeys(also[~np.isin(also, best)].tolist())), dtype=np.int64)
    items = np.concatenate([best, further])
    read = read_clicks(snapshot, clicks)
    found = Attention(None, "no click has a row: items are ranked by popularity")
    if read.any():
        nodes, click_nodes = np.unique_inverse(clicks[read])
        found = attention.read(snapshot.rows.vectors(nodes), click_nodes)
    return SessionExplanation(
        clicks=clicks,
        read=read,
        items=items,
        placement=place(ranking, items, snapshot.num_items),
        parts=score_parts(snapshot, clicks, items),
        average=average_parts(snapshot, clicks),
        attention=found,
        transition_shares=transition_shares(snapshot, clicks, items) if read.any() else _nothing(clicks, items),
        without=occlude_clicks(snapshot, clicks, items),
    )


def read_clicks(snapshot: Snapshot, clicks: Indices) -> npt.NDArray[np.bool_]:
    """bool [t], where ``Snapshot.encoded_clicks`` finds its clicks."""
    recent = np.arange(len(clicks)) >= len(clicks) - snapshot.parts.max_clicks
    has_row: npt.NDArray[np.bool_] = np.any(snapshot.rows.vectors(clicks) != 0.0, axis=1)
    return recent & has_row


def _nothing(clicks: Indices, items: Indices) -> Floats:
    return np.zeros((len(clicks), len(items)), dtype=np.float32)
