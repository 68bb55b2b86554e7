"""How a session vector is compared with item rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

import kernels
from llmgr_core.settings.encoder import EncoderSettings

SMALLEST_NORM = 1e-12


class ItemLogits(nn.Module):
    """logit_v = scale * cos(z_s, c_v), or <z_s, c_v> (``settings.logits``).

    The scale of the cosine form is stored as its logarithm, so that training can never turn it negative.
    """

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        self.cosine = settings.logits == "cosine"
        log_scale = torch.tensor(math.log(settings.scale) if self.cosine else 0.0)
        if settings.learn_scale and self.cosine:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)

    @property
    def scale(self) -> Tensor:
        """Factor of the logits, float scalar."""
        return self.log_scale.exp()

    def forward(self, session_vectors: Tensor, item_rows: Tensor) -> Tensor:
        """Logits of every item: [B, d] and [V, d] -> [B, V]."""
        if self.cosine:
            session_vectors = nn.functional.normalize(session_vectors, dim=-1, eps=SMALLEST_NORM) * self.scale
            item_rows = nn.functional.normalize(item_rows, dim=-1, eps=SMALLEST_NORM)
        return session_vectors @ item_rows.T

    def loss(self, session_vectors: Tensor, item_rows: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy over the whole catalogue, without a B x V matrix: [B, d], [V, d], int64 [B] -> scalar."""
        return kernels.catalogue_cross_entropy(session_vectors, item_rows, targets, scale=self.scale, cosine=self.cosine)
