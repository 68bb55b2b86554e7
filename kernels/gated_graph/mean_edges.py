"""The linear map from node vectors to the means over their incoming and outgoing edges, with its transpose."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional

from kernels.session_graph import SessionGraph


class MeanEdges(NamedTuple):
    """Edges sorted both ways with their share in each mean.

    Attributes:
        leaving: int64 [E], target of each edge, edges sorted by source.
        leaving_offsets: int64 [N + 1].
        arriving: int64 [E], source of each edge, edges sorted by target.
        arriving_offsets: int64 [N + 1].
        out_share: float [E], in the order of ``leaving``: weight over the source's outgoing weight.
        out_share_arriving: the same in the order of ``arriving``.
        in_share: float [E], in the order of ``arriving``: weight over the target's incoming weight.
        in_share_leaving: the same in the order of ``leaving``.
        has_edges: float [N, 2], 1 where a node has incoming, outgoing edges.
    """

    leaving: torch.Tensor
    leaving_offsets: torch.Tensor
    arriving: torch.Tensor
    arriving_offsets: torch.Tensor
    out_share: torch.Tensor
    out_share_arriving: torch.Tensor
    in_share: torch.Tensor
    in_share_leaving: torch.Tensor
    has_edges: torch.Tensor

    @classmethod
    def of(cls, graph: SessionGraph, edge_weights: str, dtype: torch.dtype) -> MeanEdges:
        """The map of a graph, for ``binary`` or ``multiplicity`` edges."""
        source, target, order = graph.edge_source, graph.edge_target, graph.target_order
        in_degree, out_degree = graph.target_offsets.diff(), graph.source_offsets.diff()
        has_edges = torch.stack([in_degree, out_degree], dim=1).clamp(max=1).to(dtype)
        if edge_weights == "multiplicity":
            # Multiplicities are small whole numbers: their float64 sums are exact, whatever the order.
            weight = graph.edge_weight.to(torch.float64)
            in_share = weight / torch.bincount(target, weights=weight, minlength=graph.num_nodes)[target]
            out_share = weight / torch.bincount(source, weights=weight, minlength=graph.num_nodes)[source]
        else:
            in_share = in_degree.to(dtype).reciprocal()[target]
            out_share = out_degree.to(dtype).reciprocal()[source]
        in_share, out_share = in_share.to(dtype), out_share.to(dtype)
        return cls(
            leaving=target,
            leaving_offsets=graph.source_offsets,
            arriving=source[order],
            arriving_offsets=graph.target_offsets,
            out_share=out_share,
            out_share_arriving=out_share[order],
            in_share=in_share[order],
            in_share_leaving=in_share,
            has_edges=has_edges,
        )

    def means(self, nodes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(mean over incoming edges, mean over outgoing edges), each [N, d]; zeros where there is none."""
        return (
            _gather_sum(nodes, self.arriving, self.arriving_offsets, self.in_share),
            _gather_sum(nodes, self.leaving, self.leaving_offsets, self.out_share),
        )

    def transposed(self, in_grad: torch.Tensor, out_grad: torch.Tensor) -> torch.Tensor:
        """[N, d], the transpose of ``means``: each node gathers from where it was sent to, so no atomics are needed."""
        gathered = _gather_sum(in_grad, self.leaving, self.leaving_offsets, self.in_share_leaving)
        return gathered.add_(_gather_sum(out_grad, self.arriving, self.arriving_offsets, self.out_share_arriving))


def _gather_sum(rows: torch.Tensor, neighbour: torch.Tensor, offsets: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    if len(neighbour) == 0:
        return torch.zeros_like(rows)
    # Several times faster on a CPU than index_add, sparse products or segment_csr, and always summed in the same order.
    return functional.embedding_bag(neighbour, rows, offsets, mode="sum", per_sample_weights=share, include_last_offset=True)
