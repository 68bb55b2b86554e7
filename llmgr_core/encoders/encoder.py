"""What every session encoder offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

from torch import Tensor, nn

from llmgr_core.encoders.graph_layer import GraphLayerWeights
from llmgr_core.graphs import SessionBatch
from llmgr_core.settings.encoder import EncoderSettings


class SessionEncoder(nn.Module, ABC):
    """z_s = f_readout({x_v}) over the graph of a session; anything with this interface can carry the semantic module.

    It sees node vectors, never item numbers, so that any table (ID vectors, fused rows, text alone) can feed it. FPMC, which
    has a table of its own, is the exception.

    Args:
        settings: what it was built from; ``settings.dimension`` is d.
    """

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        self.settings = settings
        self.dropout = nn.Dropout(settings.dropout)

    def freeze(self) -> Self:
        """Evaluation mode, in which what depends on weights alone is computed once and not at each call.

        The results are the same, to the bit. Training again, or other weights, end it (see GraphLayerWeights).
        """
        self.eval()
        for module in self.modules():
            if isinstance(module, GraphLayerWeights):
                module.freeze()
        return self

    def auxiliary_loss(self, session_vectors: Tensor, item_rows: Tensor, targets: Tensor) -> Tensor | None:
        """What the encoder's paper adds to the cross-entropy while pre-training, already weighed; None for most.

        Args:
            session_vectors: z_s, float [B, d].
            item_rows: x_v, float [V, d].
            targets: int64 [B].
        """
        return None

    @abstractmethod
    def forward(self, node_vectors: Tensor, batch: SessionBatch) -> Tensor:
        """Session vectors.

        Args:
            node_vectors: x_v, float [N, d], row i belongs to ``batch.node_items[i]``.
            batch: B sessions with N nodes in all.

        Returns:
            z_s, float [B, d]; zeros for a session without clicks.
        """
