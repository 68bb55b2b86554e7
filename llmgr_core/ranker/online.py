"""The online ranker as a trainable module."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

import kernels
from llmgr_core.encoders.backbone import Backbone
from llmgr_core.encoders.build import build_encoder
from llmgr_core.encoders.logits import ItemLogits
from llmgr_core.graphs import SessionBatch
from llmgr_core.settings.encoder import EncoderSettings

if TYPE_CHECKING:
    from llmgr_core.ranker.stored import StoredRanker


class ResidualHead(nn.Module):
    """z' = z + W_2 relu(W_1 z + b_1) + b_2; W_2 and b_2 start at zero, so that it begins as the identity."""

    def __init__(self, dimension: int, hidden: int) -> None:
        super().__init__()
        self.inner = nn.Linear(dimension, hidden)
        self.outer = nn.Linear(hidden, dimension)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, session_vectors: Tensor) -> Tensor:
        """float [B, d] -> [B, d]."""
        moved: Tensor = session_vectors + self.outer(torch.relu(self.inner(session_vectors)))
        return moved


class OnlineRanker(nn.Module):
    """ID vectors, a session encoder, an MLP head, and logits against item rows.

    The rows c_v are given from outside (see ItemTransform): the same rows are the node vectors of a session and the candidates
    it is compared with.

    Args:
        num_items: V.
        settings: encoder and logits.
        head_hidden: width of the head; 0 is no head.

    Raises:
        SettingsError: an encoder that needs a fixed catalogue, or logits that serving does not know.
    """

    def __init__(self, num_items: int, settings: EncoderSettings, head_hidden: int) -> None:
        super().__init__()
        self.settings = settings
        self.head_hidden = head_hidden
        bound = settings.dimension**-0.5
        self.id_table = nn.Parameter(torch.empty(num_items, settings.dimension).uniform_(-bound, bound))
        self.encoder = build_encoder(settings)
        self.head = ResidualHead(settings.dimension, head_hidden) if head_hidden else nn.Identity()
        self.logits = ItemLogits(settings)
        _ = self.logits.cosine  # refuses what serving does not know

    @classmethod
    def from_stored(cls, stored: StoredRanker) -> OnlineRanker:
        """A trained ranker, in evaluation mode and frozen."""
        description = stored.description
        model = cls(description.num_items, description.encoder, description.head_hidden)
        model.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in stored.tensors.items()})
        model.eval().requires_grad_(False)
        model.encoder.freeze()
        return model

    @property
    def num_items(self) -> int:
        """V."""
        return self.id_table.shape[0]

    def start_from(self, backbone: Backbone) -> None:
        """Take over ID vectors, encoder and logit scale of a pre-trained backbone with the same shape."""
        with torch.no_grad():
            self.id_table.copy_(backbone.item_table)
        self.encoder.load_state_dict(backbone.encoder.state_dict())
        self.logits.load_state_dict(backbone.logits.state_dict())

    def encode(self, rows: Tensor, batch: SessionBatch) -> Tensor:
        """z'_s of every session, float [B, d], from rows c_v, float [V, d]."""
        vectors: Tensor = self.head(self.encoder(kernels.item_rows(rows, batch.node_items), batch))
        return vectors

    def scores(self, rows: Tensor, batch: SessionBatch) -> Tensor:
        """Logits over the whole catalogue, float [B, V]."""
        scores: Tensor = self.logits(self.encode(rows, batch), rows)
        return scores
