"""The item transform while it is trained: (ID vector or none, text vector or none) to a row."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from llmgr_core.ranker.folded_transform import FoldedTransform
from llmgr_core.ranker.whitening import Whitening

# How long text parts are at first, next to ID vectors (drawn from +-1/sqrt(d)). With torch's own start they are 8 times as long
# at d = 64, and ID vectors need several epochs to be heard at all.
FIRST_LENGTH = 1.6


class FixedInputDropout(nn.Module):
    """Dropout of an input that is not trained, several times as fast on a CPU: one random byte an element.

    The share is rounded to 1/256.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, values: Tensor) -> Tensor:
        """float [n, r] -> [n, r]; elements dropped at random and the others scaled up while training."""
        below = round(256 * self.p)
        if not self.training or below == 0:
            return values
        words = torch.empty((values.numel() + 7) // 8, dtype=torch.int64, device=values.device).random_(-(2**63), None)
        kept = words.view(torch.uint8)[: values.numel()].view_as(values) >= below
        return values * kept * (256.0 / (256 - below))


class ItemTransform(nn.Module):
    """c_v = x_v + t_v with t_v = W^T u_v + b; c_v = s t_v for an item without an ID vector.

    u_v are whitened text vectors (see Whitening). While training, whole ID vectors are dropped at random, so that W and s learn
    to let text alone rank an item (DropoutNet, Volkovs et al., 2017).

    Args:
        whitening: fitted on the training items; not trained.
        dimension: d.
        text_dropout: share of the elements of u_v dropped while training.
        id_dropout: share of the ID vectors dropped while training.
    """

    def __init__(self, whitening: Whitening, dimension: int, text_dropout: float, id_dropout: float) -> None:
        super().__init__()
        self.whitening = whitening
        self.id_dropout = id_dropout
        self.text_dropout = FixedInputDropout(text_dropout)
        self.linear = nn.Linear(whitening.rank, dimension)
        bound = FIRST_LENGTH / (dimension * whitening.rank) ** 0.5
        nn.init.uniform_(self.linear.weight, -bound, bound)
        nn.init.zeros_(self.linear.bias)
        self.log_text_only_scale = nn.Parameter(torch.zeros(()))

    def forward(self, id_vectors: Tensor, has_id: Tensor, whitened: Tensor, has_text: Tensor) -> Tensor:
        """Rows of all items.

        Args:
            id_vectors: x_v, float [V, d].
            has_id: bool [V].
            whitened: u_v, float [V, r]; zeros without ``has_text``.
            has_text: bool [V].

        Returns:
            c_v, float [V, d]; an item without text never loses its ID vector.
        """
        text = self.linear(self.text_dropout(whitened)) * has_text[:, None]
        if self.training and self.id_dropout > 0:
            kept = torch.rand(len(id_vectors), device=id_vectors.device) >= self.id_dropout
            has_id = has_id & (kept | ~has_text)
        scale = torch.where(has_id, 1.0, self.log_text_only_scale.exp())
        rows: Tensor = torch.where(has_id[:, None], id_vectors, 0.0) + scale[:, None] * text
        return rows

    @torch.no_grad()
    def folded(self) -> FoldedTransform:
        """The same map as one matrix and one vector, for serving."""
        weight = self.linear.weight.detach().double().cpu()
        basis = torch.from_numpy(self.whitening.basis).double()
        matrix = basis @ weight.T
        centre = torch.from_numpy(self.whitening.centre).double()
        offset = self.linear.bias.detach().double().cpu() - centre @ matrix
        return FoldedTransform(matrix.float().numpy(), offset.float().numpy(), float(self.log_text_only_scale.exp()))
