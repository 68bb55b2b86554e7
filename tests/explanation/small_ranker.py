"""A small ranker with random weights, as a server would hold it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from stored_ranker import make_stored

from llmgr_core.explanation.attention import AttentionReader
from llmgr_core.ranker import RankerRuntime, ScoringSettings
from llmgr_core.ranker.stored import StoredRanker
from llmgr_core.ranker.text_lenders import TextLenders
from llmgr_core.ranker.whitening import Whitening
from llmgr_core.settings.encoder import EncoderSettings

ITEMS = 50
TEXT_DIMENSION = 12


@dataclass
class SmallRanker:
    stored: StoredRanker
    runtime: RankerRuntime
    vectors: np.ndarray
    present: np.ndarray

    @property
    def snapshot(self):
        return self.runtime.snapshot

    @property
    def attention(self) -> AttentionReader:
        return AttentionReader(self.stored)


def small_ranker(
    encoder: EncoderSettings | None = None,
    *,
    text: bool = True,
    without_id: tuple[int, ...] = (3, 4),
    without_text: tuple[int, ...] = (4, 5),
    include_seen: bool = False,
    transitions: float = 1.5,
    seed: int = 0,
) -> SmallRanker:
    """Items 3 and 4 were never clicked, 4 and 5 have no text: 4 has no row at all."""
    encoder = encoder or EncoderSettings(name="gcsan", dimension=16, max_clicks=6)
    stored = make_stored(
        ITEMS,
        text_dimension=TEXT_DIMENSION if text else 0,
        encoder=encoder,
        scoring=ScoringSettings(
            transition_weight=transitions, transition_slope=20.0, temperature=0.8, include_seen=include_seen
        ),
        without_id=without_id,
        num_sessions=60,
        seed=seed,
    )
    vectors = np.random.default_rng(seed).normal(size=(ITEMS, TEXT_DIMENSION)).astype(np.float16)
    present = np.ones(ITEMS, dtype=np.bool_)
    present[list(without_text)] = False
    if text:
        lending = (stored.popularity > 0) & present
        lenders = TextLenders.collect(Whitening.fit(vectors, 6, 0.5), vectors, lending, 4)
        stored = dataclasses.replace(stored, lenders=lenders)
    ids = [f"id-{number}" for number in range(ITEMS)]
    runtime = RankerRuntime(stored.parts("v", ids), vectors if text else None, present if text else None)
    return SmallRanker(stored, runtime, vectors, present)
