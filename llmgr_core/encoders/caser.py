"""Caser (Tang & Wang 2018): convolutions over the last clicks as an image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import kernels
from llmgr_core.encoders.encoder import SessionEncoder
from llmgr_core.encoders.ragged_rows import zero_where_empty
from llmgr_core.graphs import SessionBatch
from llmgr_core.settings.encoder import EncoderSettings


class Caser(SessionEncoder):
    """z_s = W' relu(W [o ; o~] + b) + b' over E, the vectors of the last L = ``settings.window`` clicks, zeros in front.

    o: for each height h = 1..L, n = ``settings.horizontal_filters`` filters F of h x d; a filter's value at row i is
    relu(<E_{i:i+h-1}, F> + bias), and the largest over i is kept: n L numbers (eq. 4-6).
    o~: n~ = ``settings.vertical_filters`` filters over the rows, sum_l F~_l E_l: n~ d numbers (eq. 7-9).

    The user vector of the paper is dropped. Its output layer W', one row an item, stands apart from the items' input vectors;
    here both are the item table, and a d x d map before it takes the place of that freedom (z is never negative without it).
    """

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__(settings)
        d, size, filters = settings.dimension, settings.window, settings.horizontal_filters
        self.horizontal = nn.ModuleList(nn.Linear(height * d, filters) for height in range(1, size + 1))
        self.vertical = nn.Linear(size, settings.vertical_filters, bias=False)
        self.joined = nn.Linear(filters * size + settings.vertical_filters * d, d)
        self.output = nn.Linear(d, d)

    def forward(self, node_vectors: Tensor, batch: SessionBatch) -> Tensor:
        if batch.graph.num_nodes == 0:
            return node_vectors.new_zeros(batch.num_sessions, self.settings.dimension)
        image = self._image(node_vectors, batch)
        across = [self._largest(image, linear, height) for height, linear in enumerate(self.horizontal, start=1)]
        down: Tensor = self.vertical(image.transpose(1, 2))
        seen = torch.cat([*across, down.transpose(1, 2).flatten(1)], dim=1)
        vectors: Tensor = self.output(torch.relu(self.joined(self.dropout(seen))))
        return zero_where_empty(vectors, batch)

    def _image(self, node_vectors: Tensor, batch: SessionBatch) -> Tensor:
        """E of every session, float [B, L, d]."""
        offsets, size = batch.click_offsets, self.settings.window
        click = offsets[1:, None] - size + torch.arange(size, device=offsets.device)
        there = click >= offsets[:-1, None]
        nodes = batch.click_nodes[torch.where(there, click, 0)]
        rows = kernels.item_rows(node_vectors, nodes.flatten()).view(*nodes.shape, -1)
        return rows * there[:, :, None]

    @staticmethod
    def _largest(image: Tensor, linear: nn.Module, height: int) -> Tensor:
        """Largest value of each filter of this height over its places: [B, L, d] -> [B, n]."""
        # [B, L - h + 1, h d]: a convolution as one product, whose gradient is summed in a fixed order on a GPU too.
        patches = image.unfold(1, height, 1).transpose(2, 3).flatten(2)
        values: Tensor = torch.relu(linear(patches))
        return values.amax(dim=1)
