"""What can be evaluated: anything that scores every item after a prefix."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from llmgr_core.encoders import Backbone
from llmgr_core.graphs import SessionBatch
from llmgr_core.sessions import Examples
from llmgr_core.transitions import TransitionGraph


class Scorer(Protocol):
    """Scores of every item of the catalogue after each prefix; no masking, the evaluation does that."""

    @property
    def name(self) -> str:
        """Name of its row in the tables."""
        ...

    def scores(self, examples: Examples) -> Tensor:
        """float32 [B, V] on the CPU; targets and later clicks must not be looked at."""
        ...


class PopularityScorer:
    """Every item by its clicks in training."""

    name = "popularity"

    def __init__(self, train_counts: npt.NDArray[np.integer]) -> None:
        self._counts = torch.from_numpy(train_counts.astype(np.float32))

    def scores(self, examples: Examples) -> Tensor:
        return self._counts.expand(len(examples), -1)


class FloorScorer:
    """Decayed item transitions: what a model without training reaches."""

    name = "floor"

    def __init__(self, graph: TransitionGraph) -> None:
        self._graph = graph

    def scores(self, examples: Examples) -> Tensor:
        return self._graph.scores(examples.prefixes(self._graph.settings.clicks))


class BackboneScorer:
    """The pre-trained ID-only model, put into evaluation mode and frozen as it is (see SessionEncoder.freeze)."""

    def __init__(self, backbone: Backbone, name: str = "backbone") -> None:
        self.name = name
        self._backbone = backbone
        backbone.encoder.freeze()

    @torch.inference_mode()
    def scores(self, examples: Examples) -> Tensor:
        self._backbone.eval()
        device = self._backbone.item_table.device
        settings = self._backbone.settings
        batch = SessionBatch.from_sessions(examples.prefixes(settings.max_clicks), device=device)
        return self._backbone.scores(batch).float().cpu()
