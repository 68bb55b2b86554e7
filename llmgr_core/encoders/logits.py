"""How a session vector is compared with item rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

import kernels
from llmgr_core.encoders import lorentz
from llmgr_core.errors import SettingsError
from llmgr_core.settings.encoder import EncoderSettings

SMALLEST_NORM = 1e-12


class ItemLogits(nn.Module):
    """logit_v = scale * cos(z_s, c_v), <z_s, c_v> or -scale / 2 * ||exp_o(z_s) - exp_o(c_v)||_L^2 (``settings.logits``).

    The last, "lorentz", takes both for tangent vectors at the origin of hyperbolic space and compares the points they lead to
    by the squared Lorentzian distance -2 - 2 <x, y>_L = 4 sinh^2(d_L / 2) (Law et al. 2019). It ranks items just as the
    geodesic distance d_L does, is d_L^2 for near points, and is an inner product of vectors of d + 1 and a constant, so that
    the catalogue needs no B x V distances.

    The scale is stored as its logarithm, so that training can never turn it negative.
    """

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        self.kind = settings.logits
        scaled = self.kind != "dot"
        log_scale = torch.tensor(math.log(settings.scale) if scaled else 0.0)
        if settings.learn_scale and scaled:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)

    @property
    def cosine(self) -> bool:
        """Whether directions are compared; else plain inner products.

        Raises:
            SettingsError: neither; who asks cannot compare in hyperbolic space.
        """
        if self.kind == "lorentz":
            raise SettingsError(
                'encoder.logits = "lorentz" (what "hcgr" takes unless told otherwise) is for the backbone alone',
                'set encoder.logits="cosine" for what is built on it, and pre-train again',
            )
        return self.kind == "cosine"

    @property
    def scale(self) -> Tensor:
        """Factor of the logits, float scalar."""
        return self.log_scale.exp()

    def forward(self, session_vectors: Tensor, item_rows: Tensor) -> Tensor:
        """Logits of every item: [B, d] and [V, d] -> [B, V]."""
        if self.kind == "lorentz":
            sessions, items = self._on_hyperboloid(session_vectors, item_rows)
            return (1.0 + sessions @ items.T) * self.scale
        if self.kind == "cosine":
            session_vectors = nn.functional.normalize(session_vectors, dim=-1, eps=SMALLEST_NORM) * self.scale
            item_rows = nn.functional.normalize(item_rows, dim=-1, eps=SMALLEST_NORM)
        return session_vectors @ item_rows.T

    def loss(self, session_vectors: Tensor, item_rows: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy over the whole catalogue, without a B x V matrix: [B, d], [V, d], int64 [B] -> scalar."""
        if self.kind == "lorentz":
            session_vectors, item_rows = self._on_hyperboloid(session_vectors, item_rows)
        cosine = self.kind == "cosine"
        return kernels.catalogue_cross_entropy(session_vectors, item_rows, targets, scale=self.scale, cosine=cosine)

    @staticmethod
    def _on_hyperboloid(session_vectors: Tensor, item_rows: Tensor) -> tuple[Tensor, Tensor]:
        """Points whose plain inner products are <x, y>_L: [B, d + 1] and [V, d + 1]."""
        return lorentz.from_origin(session_vectors), lorentz.mirrored(lorentz.from_origin(item_rows))
