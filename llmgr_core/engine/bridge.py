"""The bridge between the space of item IDs and that of the language model: W_p, readout and heads."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from llmgr_core.settings.tune import TuneSettings

FIRST_GATE = 0.1
# Text says only roughly where an item lies among the IDs; sharper softmaxes than this start out overconfident.
FIRST_SCALE = 5.0


class Readout(nn.Module):
    """From the last hidden states of a prompt to one vector: [B, T, D] to [B, D], over real positions only.

    "attention" is sum_t a_t h_t with a = softmax(<q, norm(h_t)> / sqrt(D)); q starts at zero, which is the mean.
    """

    def __init__(self, hidden_size: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        if kind == "attention":
            self.query = nn.Parameter(torch.zeros(hidden_size))

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        absent = ~mask[:, :, None]
        if self.kind == "max":
            return hidden.masked_fill(absent, -math.inf).amax(dim=1)
        hidden = hidden.masked_fill(absent, 0.0)
        if self.kind == "mean":
            return hidden.sum(dim=1) / mask.sum(dim=1, keepdim=True)
        width = hidden.shape[-1]
        scores = nn.functional.layer_norm(hidden, (width,)) @ self.query.to(hidden.dtype) / math.sqrt(width)
        weights = scores.masked_fill(~mask, -math.inf).softmax(dim=1)
        return torch.einsum("bt,btd->bd", weights, hidden)


class Head(nn.Module):
    """[..., D] to [..., D]: the identity plus what training adds, a linear map or an MLP (GELU)."""

    def __init__(self, hidden_size: int, kind: str) -> None:
        super().__init__()
        self.inner = nn.Linear(hidden_size, hidden_size) if kind == "mlp" else None
        self.outer = nn.Linear(hidden_size, hidden_size)
        # Starts as the identity: W_p begins as the best linear map between the spaces, and noise between them would undo that.
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, vectors: Tensor) -> Tensor:
        inner = nn.functional.layer_norm(vectors, vectors.shape[-1:])
        if self.inner is not None:
            inner = nn.functional.gelu(self.inner(inner))
        # Adam's first steps move every weight by the full rate; over D inputs that would swamp what the vector holds.
        changed: Tensor = vectors + self.outer(inner) / math.sqrt(vectors.shape[-1])
        return changed


class Bridge(nn.Module):
    """All parameters outside the language model and the backbone.

    Attributes:
        projection: W_p, float [D, d]; enters prompts as x~_v = W_p x_v and logits as <head(H), W_p x_v>. Where W_p is an MLP,
            its last layer.
        first_layers: the layers before that one, [d] to [d]; None where W_p is linear.
        readout, head: from hidden states to head(H).
        graph_gate: weight of the language model's part of the session vector beside z_s.
        text_head: map [D] to [text_rows], which starts as the whitening of the text vectors.
        text_gate: weight of the text part of the logits.
        log_prompt_scale, log_item_scale: logarithm of the sharpness of stage 1's softmax over candidates, and of that over
            the catalogue for stored text vectors.
        text_mean: float [D], mean text vector, taken off before W_p since it says nothing about an item.
        prompt_mean: float [D], mean readout of the current stage's prompts, taken off for the same reason.
    """

    text_mean: Tensor
    prompt_mean: Tensor

    def __init__(self, hidden_size: int, dimension: int, settings: TuneSettings) -> None:
        super().__init__()
        self.projection = nn.Parameter(torch.randn(hidden_size, dimension) / math.sqrt(dimension))
        self.readout = Readout(hidden_size, settings.readout)
        self.head = Head(hidden_size, settings.head)
        self.graph_gate = nn.Parameter(torch.tensor(FIRST_GATE))
        self.text_head = nn.Linear(hidden_size, settings.text_rows, bias=False) if settings.text_rows else None
        self.text_gate = nn.Parameter(torch.tensor(FIRST_GATE)) if settings.text_rows else None
        self.log_prompt_scale = nn.Parameter(torch.tensor(math.log(FIRST_SCALE)))
        self.log_item_scale = nn.Parameter(torch.tensor(math.log(FIRST_SCALE)))
        self.first_layers = Head(dimension, "mlp") if settings.projection == "mlp" else None
        self.register_buffer("text_mean", torch.zeros(hidden_size))
        self.register_buffer("prompt_mean", torch.zeros(hidden_size))

    def read(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """The prompt's vector, centred: [B, T, D] and bool [B, T] to float32 [B, D]."""
        centred: Tensor = self.readout(hidden.float(), mask) - self.prompt_mean
        return centred

    def enter(self, vectors: Tensor) -> Tensor:
        """u = x + MLP(x), what the last layer of an MLP takes, float [..., d]; x itself where W_p is linear."""
        if self.first_layers is None:
            return vectors
        entered: Tensor = self.first_layers(vectors)
        return entered

    def fold(self, vectors: Tensor) -> Tensor:
        """W_p^T y, float [B, D] to [B, d]: <y, W_p x_v> = <W_p^T y, x_v>, so that the whole catalogue costs d a row, not D.

        Of an MLP W_p this is the last layer, and what it is compared with is u_v.
        """
        return vectors @ self.projection.to(vectors.dtype)

    def session_part(self, read: Tensor) -> Tensor:
        """W_p^T head(H), float [B, D] to [B, d]."""
        return self.fold(self.head(read))

    def item_part(self, text_vectors: Tensor) -> Tensor:
        """W_p^T (e_v - mean): where a text vector lies among the item IDs; float [B, D] to [B, d]."""
        return self.fold(text_vectors - self.text_mean)
