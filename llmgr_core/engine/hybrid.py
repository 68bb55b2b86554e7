"""Hybrid encoding: text tokens and projected ID vectors side by side in one input sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch

import kernels
from kernels import GatedGraphWeights, SessionGraph
from kernels.gated_graph import EdgeWeights, FoldedGraphWeights
from llmgr_core.engine.language_model import LanguageModel
from llmgr_core.engine.token_batches import pad_right

HybridRow = list[int]
"""One sequence: a token id t >= 0, or -1 - i for the i-th vector of the batch."""


def vector_place(index: int) -> int:
    """The entry of a HybridRow that stands for vector ``index``."""
    return -1 - index


@dataclass(frozen=True)
class VectorPlaces:
    """Where the vectors of a batch stand, row by row.

    Attributes:
        rows, positions: int64 [n], each place of a vector.
        vectors: int64 [n], the vector that stands there.
        first_rows, first_positions: int64 [N], the first place of each of the first N vectors; row -1 where it has none.
        others: int64 [m], entries of the former three that are not such a first place.
    """

    rows: torch.Tensor
    positions: torch.Tensor
    vectors: torch.Tensor
    first_rows: torch.Tensor
    first_positions: torch.Tensor
    others: torch.Tensor

    @classmethod
    def of(cls, entries: torch.Tensor, first: int) -> VectorPlaces:
        """The places in ``entries`` (int64 [B, T], on the CPU) with N = ``first``."""
        rows, positions = torch.nonzero(entries < 0, as_tuple=True)
        vectors = -1 - entries[rows, positions]
        distinct, where = np.unique(vectors.numpy(), return_index=True)
        place = torch.from_numpy(where[distinct < first].astype(np.int64))
        first_rows, first_positions = torch.full((2, first), -1, dtype=torch.int64).unbind(0)
        first_rows[vectors[place]], first_positions[vectors[place]] = rows[place], positions[place]
        again = torch.ones(len(rows), dtype=torch.bool)
        again[place] = False
        return cls(rows, positions, vectors, first_rows, first_positions, torch.nonzero(again)[:, 0])

    def to(self, device: torch.device | str) -> VectorPlaces:
        """The same on another device."""
        return VectorPlaces(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


@dataclass(frozen=True)
class HybridInput:
    """A padded batch of hybrid sequences.

    Attributes:
        entries: int64 [B, T], HybridRow entries, 0 on padding.
        mask: bool [B, T], True on real positions, which come first in each row.
        places: where its vectors stand.
    """

    entries: torch.Tensor
    mask: torch.Tensor
    places: VectorPlaces

    @classmethod
    def from_rows(cls, rows: Sequence[HybridRow], device: torch.device | str = "cpu", nodes: int = 0) -> HybridInput:
        """Pad the rows.

        Args:
            nodes: so many of the vectors, the first ones, are nodes of session graphs (see ``vectors_of_graph``).
        """
        entries, mask = pad_right(rows, padding=0)
        return cls(entries.to(device), mask.to(device), VectorPlaces.of(entries, nodes).to(device))

    @property
    def tokens(self) -> int:
        """Positions the model computes, padding included."""
        return self.entries.numel()

    def vectors(self, model: LanguageModel, projection: torch.Tensor, id_vectors: torch.Tensor) -> torch.Tensor:
        """Input vectors [x~_v1 ... ; e_t1 ...] with x~_v = W_p x_v (paper, hybrid encoding layer).

        Args:
            model: gives the token vectors e_t.
            projection: W_p, float [D, d].
            id_vectors: float [n, d], the vectors that the rows' entries refer to.

        Returns:
            float32 [B, T, D].
        """
        places = self.places
        projected = id_vectors[places.vectors].to(projection.dtype) @ projection.T
        return self._token_vectors(model).index_put((places.rows, places.positions), projected.float())

    def vectors_of_graph(
        self,
        model: LanguageModel,
        projection: torch.Tensor,
        nodes: torch.Tensor,
        graph: SessionGraph,
        layer: GatedGraphWeights | FoldedGraphWeights,
        num_layers: int,
        edges: EdgeWeights,
        session_vectors: torch.Tensor,
    ) -> torch.Tensor:
        """As ``vectors`` of [nodes after the graph layers ; session vectors], the layers and W_p in one operation.

        Args:
            model, projection: as for ``vectors``.
            nodes: float [N, d], x_v before the layers.
            graph, layer, num_layers, edges: see kernels.gated_graph_layers.
            session_vectors: float [B, d].

        Returns:
            float32 [B, T, D].
        """
        places = self.places
        first = places.first_rows, places.first_positions
        inputs = kernels.gated_graph_project_into(
            nodes,
            graph,
            layer,
            num_layers,
            projection,
            self._token_vectors(model),
            *first,
            edges,
            # The token vectors have just been made for this call; only a gradient asks for a copy of them.
            in_place=not torch.is_grad_enabled(),
        )
        # A node is named again among edges and last clicks: there its first place is copied.
        projected = torch.cat([inputs[first], (session_vectors.to(projection.dtype) @ projection.T).float()])
        others = places.others
        return inputs.index_put((places.rows[others], places.positions[others]), projected[places.vectors[others]])

    def _token_vectors(self, model: LanguageModel) -> torch.Tensor:
        return model.embed_tokens(self.entries.clamp_min(0)).float()
