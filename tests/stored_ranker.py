"""A small ranker with random weights, as distillation would store it."""

from __future__ import annotations

import numpy as np
import torch

from llmgr_core.ranker import FoldedTransform, ScoringSettings
from llmgr_core.ranker.online import OnlineRanker
from llmgr_core.ranker.stored import RankerDescription, StoredRanker
from llmgr_core.sessions import Sessions
from llmgr_core.settings.encoder import EncoderSettings
from llmgr_core.settings.transitions import TransitionSettings
from llmgr_core.transitions import TransitionGraph


def make_stored(
    num_items: int = 60,
    *,
    text_dimension: int = 12,
    encoder: EncoderSettings | None = None,
    scoring: ScoringSettings | None = None,
    without_id: tuple[int, ...] = (),
    num_sessions: int = 40,
    seed: int = 0,
) -> StoredRanker:
    """A ranker with random weights; popularity and transitions are those of sessions of five clicks each."""
    encoder = encoder or EncoderSettings(name="srgnn", dimension=16, max_clicks=6)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = OnlineRanker(num_items, encoder, head_hidden=8)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    has_id = np.ones(num_items, dtype=np.bool_)
    has_id[list(without_id)] = False
    sessions = [rng.choice(np.flatnonzero(has_id), size=5).tolist() for _ in range(num_sessions)]
    train = Sessions.from_lists(sessions)
    width = encoder.dimension
    transform = FoldedTransform(
        rng.normal(size=(text_dimension, width)).astype(np.float32), rng.normal(size=width).astype(np.float32), 0.7
    )
    description = RankerDescription(
        variant="fused" if text_dimension else "id-only",
        num_items=num_items,
        encoder=encoder,
        head_hidden=8,
        text_dimension=text_dimension,
        fingerprint="f" * 64 if text_dimension else "",
        scoring=scoring or ScoringSettings(transition_weight=1.5, transition_slope=20.0, temperature=0.8),
    )
    return StoredRanker(
        description=description,
        tensors={name: tensor.detach().numpy() for name, tensor in model.state_dict().items()},
        has_id=has_id,
        popularity=train.click_counts(num_items),
        transform=transform if text_dimension else None,
        transitions=TransitionGraph.build(train, num_items, TransitionSettings()).pruned(),
    )
