"""A bundle of random weights, of any size: for benchmarks, load tests and trials where nothing has been trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llmgr_core.artefacts import draft_artefact
from llmgr_core.bundle import EngineReference, write_bundle
from llmgr_core.ranker import FoldedTransform, ScoringSettings
from llmgr_core.ranker.online import OnlineRanker
from llmgr_core.ranker.stored import RankerDescription, StoredRanker
from llmgr_core.sessions import Sessions
from llmgr_core.settings.encoder import EncoderSettings
from llmgr_core.settings.transitions import TransitionSettings
from llmgr_core.transitions import TransitionGraph


@dataclass(frozen=True)
class SyntheticBundle:
    """What a synthetic bundle looks like.

    Attributes:
        num_items: V.
        text_dimension: D; 0 makes a bundle that ranks by ids alone.
        fingerprint: encoder fingerprint it stands on.
        encoder: settings of the encoder.
        head_hidden: width of the head.
        clicks_per_item: training clicks its popularity and its transitions are drawn from.
        include_seen: default of the bundle.
        seed: of the weights; other seeds make other versions.
    """

    num_items: int
    text_dimension: int = 0
    fingerprint: str = ""
    encoder: EncoderSettings = dataclasses.field(default_factory=EncoderSettings)
    head_hidden: int = 128
    clicks_per_item: int = 10
    include_seen: bool = False
    seed: int = 1

    def write(
        self, path: Path, *, cleaner_state: Mapping[str, Any] | None = None, engine: EngineReference | None = None
    ) -> None:
        """Write it as an artefact; its items are called "item-0", "item-1", ...

        Args:
            path: directory; a bundle that stands there is replaced.
            cleaner_state, engine: of a real language model, so that an embedding server can serve the bundle.
        """
        names = [f"item-{index}" for index in range(self.num_items)]
        settings = {"synthetic": {**dataclasses.asdict(self), "encoder": self.encoder.model_dump()}}
        with draft_artefact(path, "bundle", [], settings) as draft:
            write_bundle(draft.path, self._ranker(), names, cleaner_state=cleaner_state or {}, engine=engine or self._engine())

    def _engine(self) -> EngineReference | None:
        if not self.text_dimension:
            return None
        return EngineReference(
            settings={},
            base_hash="",
            adapter_hash="",
            fingerprint=self.fingerprint,
            prompt_version="",
            hidden_size=self.text_dimension,
        )

    def _ranker(self) -> StoredRanker:
        random = np.random.default_rng(self.seed)
        sessions = self._sessions(random)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            model = OnlineRanker(self.num_items, self.encoder, self.head_hidden)
        dimension = self.encoder.dimension
        transform = FoldedTransform(
            random.normal(0.0, dimension**-0.5, (self.text_dimension, dimension)).astype(np.float32),
            np.zeros(dimension, dtype=np.float32),
            1.0,
        )
        return StoredRanker(
            RankerDescription(
                variant="fused" if self.text_dimension else "id-only",
                num_items=self.num_items,
                encoder=self.encoder,
                head_hidden=self.head_hidden,
                text_dimension=self.text_dimension,
                fingerprint=self.fingerprint if self.text_dimension else "",
                scoring=ScoringSettings(transition_weight=0.5, temperature=0.8, include_seen=self.include_seen),
            ),
            {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()},
            has_id=np.ones(self.num_items, dtype=np.bool_),
            popularity=sessions.click_counts(self.num_items),
            transform=transform if self.text_dimension else None,
            transitions=TransitionGraph.build(sessions, self.num_items, TransitionSettings()).pruned(),
        )

    def _sessions(self, random: np.random.Generator) -> Sessions:
        """Sessions of five clicks; item i is clicked in proportion to 1 / (i + 10)."""
        clicks = self.num_items * self.clicks_per_item // 5 * 5
        share = 1.0 / (np.arange(self.num_items) + 10.0)
        items = random.choice(self.num_items, clicks, p=share / share.sum()).astype(np.int32)
        return Sessions(items, np.arange(0, clicks + 1, 5, dtype=np.int64))
