"""A small ranker with random weights, as a server would hold it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from llmgr_core.explanation.attention import AttentionReader
from llmgr_core.ranker import FoldedTransform, RankerRuntime, ScoringSettings
from llmgr_core.ranker.online import OnlineRanker
from llmgr_core.ranker.stored import RankerDescription, StoredRanker
from llmgr_core.ranker.text_lenders import TextLenders
from llmgr_core.ranker.whitening import Whitening
from llmgr_core.sessions import Sessions
from llmgr_core.settings.encoder import EncoderSettings
from llmgr_core.settings.transitions import TransitionSettings
from llmgr_core.transitions import TransitionGraph

ITEMS = 50
TEXT_DIMENSION = 12


@dataclass
class SmallRanker:
    stored: StoredRanker
    runtime: RankerRuntime
    vectors: np.ndarray
    present: np.ndarray
    train: Sessions

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
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = OnlineRanker(ITEMS, encoder, head_hidden=8)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    has_id = np.ones(ITEMS, dtype=np.bool_)
    has_id[list(without_id)] = False
    train = Sessions.from_lists([rng.choice(np.flatnonzero(has_id), size=5).tolist() for _ in range(60)])
    vectors = rng.normal(size=(ITEMS, TEXT_DIMENSION)).astype(np.float16)
    present = np.ones(ITEMS, dtype=np.bool_)
    present[list(without_text)] = False
    matrix = rng.normal(size=(TEXT_DIMENSION, encoder.dimension)).astype(np.float32)
    transform = FoldedTransform(matrix, rng.normal(size=encoder.dimension).astype(np.float32), 0.7)
    popularity = train.click_counts(ITEMS)
    lenders = TextLenders.collect(Whitening.fit(vectors, 6, 0.5), vectors, (popularity > 0) & present, 4)
    stored = StoredRanker(
        description=RankerDescription(
            variant="fused" if text else "id-only",
            num_items=ITEMS,
            encoder=encoder,
            head_hidden=8,
            text_dimension=TEXT_DIMENSION if text else 0,
            fingerprint="f" * 64 if text else "",
            scoring=ScoringSettings(
                transition_weight=transitions, transition_slope=20.0, temperature=0.8, include_seen=include_seen
            ),
        ),
        tensors={name: tensor.detach().numpy() for name, tensor in model.state_dict().items()},
        has_id=has_id,
        popularity=popularity,
        transform=transform if text else None,
        transitions=TransitionGraph.build(train, ITEMS, TransitionSettings()).pruned(),
        lenders=lenders if text else None,
    )
    ids = [f"id-{number}" for number in range(ITEMS)]
    runtime = RankerRuntime(stored.parts("v", ids), vectors if text else None, present if text else None)
    return SmallRanker(stored, runtime, vectors, present, train)
