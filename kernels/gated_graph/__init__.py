"""Gated message passing over session graphs (SR-GNN, GC-SAN), alone and followed by the bridge W_p."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from kernels.attention_readout import ReadoutWeights, attention_readout
from kernels.dispatch import chosen_path
from kernels.gated_graph.folding import FoldedGraphWeights, folded
from kernels.gated_graph.placing import placed
from kernels.gated_graph.torch_path import gated_graph_layers_torch
from kernels.gated_graph.weights import GatedGraphWeights

if TYPE_CHECKING:
    from kernels.session_graph import SessionGraph

# Largest d of the Triton kernels; nothing in them but what has been compiled and tried.
WIDEST = 128

EdgeWeights = Literal["binary", "multiplicity"]

__all__ = [
    "EdgeWeights",
    "FoldedGraphWeights",
    "GatedGraphWeights",
    "folded",
    "gated_graph_layers",
    "gated_graph_project_into",
    "gated_graph_project_pooled",
]


def gated_graph_layers(
    nodes: torch.Tensor,
    graph: SessionGraph,
    weights: GatedGraphWeights | FoldedGraphWeights,
    num_layers: int = 1,
    edge_weights: EdgeWeights = "binary",
) -> torch.Tensor:
    """Run L gated layers x_v' = f_upd(x_v, t_v) over all sessions of a batch.

    The gate is SR-GNN's, which equals ``GRUCell(2d -> d)`` on [in-aggregate, out-aggregate]. An aggregate is the mean over
    the incoming (outgoing) edges of a linear map of the neighbour; its bias counts only where there is such an edge.
    All layers share the weights. The formula stands in ``kernels.gated_graph.reference``.

    Args:
        nodes: float [N, d], x_v of each node.
        graph: session graphs with N nodes, on the same device.
        weights: tensors of the dtype of ``nodes``; folded ones (``folded``) save a dozen small operations a call. The witness
            torch_scatter takes them unfolded only, and the torch path runs in its place.
        num_layers: L >= 0.
        edge_weights: ``binary`` counts every distinct edge once, as SR-GNN does; ``multiplicity`` weighs it by how often it was
            clicked.

    Returns:
        float [N, d]; differentiable with respect to ``nodes`` and ``weights``, same result on every run.

    Raises:
        ValueError: shapes do not fit, or an unknown ``edge_weights``.
    """
    _check_layers(nodes, graph, weights, num_layers, edge_weights)
    path = chosen_path("gated_graph_layers", ("torch", "torch_scatter", "triton"), nodes, _unsupported(nodes, weights))
    if path == "triton":
        from kernels.gated_graph.triton_path import gated_graph_layers_triton

        return gated_graph_layers_triton(nodes, graph, folded(weights), num_layers, edge_weights)
    if path == "torch_scatter" and isinstance(weights, GatedGraphWeights):
        from kernels.gated_graph.scatter_path import gated_graph_layers_scatter

        return gated_graph_layers_scatter(nodes, graph, weights, num_layers, edge_weights)
    return gated_graph_layers_torch(nodes, graph, weights, num_layers, edge_weights)


def _check_layers(
    nodes: torch.Tensor,
    graph: SessionGraph,
    weights: GatedGraphWeights | FoldedGraphWeights,
    num_layers: int,
    edge_weights: str,
) -> None:
    if nodes.shape != (graph.num_nodes, weights.dimension):
        raise ValueError(f"nodes are {tuple(nodes.shape)}, graph and weights need {(graph.num_nodes, weights.dimension)}")
    if edge_weights not in ("binary", "multiplicity"):
        raise ValueError(f"edge_weights={edge_weights!r} is neither 'binary' nor 'multiplicity'")
    if num_layers < 0:
        raise ValueError(f"num_layers={num_layers} is negative")


def _unsupported(nodes: torch.Tensor, weights: GatedGraphWeights | FoldedGraphWeights) -> str:
    """What of a call the Triton kernels do not take."""
    if weights.dimension > WIDEST:
        return f"it does not take d = {weights.dimension} > {WIDEST}"
    if nodes.dtype != weights[0].dtype:
        return f"nodes are {nodes.dtype}, weights {weights[0].dtype}"
    return ""


def gated_graph_project_into(
    nodes: torch.Tensor,
    graph: SessionGraph,
    weights: GatedGraphWeights | FoldedGraphWeights,
    num_layers: int,
    projection: torch.Tensor,
    out: torch.Tensor,
    rows: torch.Tensor,
    positions: torch.Tensor,
    edge_weights: EdgeWeights = "binary",
    in_place: bool = False,
) -> torch.Tensor:
    """Run the layers, project each node with W_p, and place it among the inputs of a language model.

        result = out, except result[rows[i], positions[i]] = W_p x_i    for rows[i] >= 0

    Args:
        nodes: float [N, d].
        graph: session graphs with N nodes.
        weights: of the gated layer.
        num_layers: L.
        projection: float [D, d], W_p; no bias.
        out: [B, T, D], embeddings of the prompt's tokens in the model's dtype.
        rows: int64 [N], the prompt that takes each node; -1 leaves the node out. No (row, position) pair twice.
        positions: int64 [N], the place in that prompt.
        edge_weights: as for ``gated_graph_layers``.
        in_place: write into ``out``, which must be contiguous, and return it: only the placed rows are moved. Without, ``out``
            is left as it is and a copy returned, which reads and writes B T D numbers more. A gradient needs the copy,
            because torch cannot differentiate an operator that changes its argument.

    Returns:
        [B, T, D] in the dtype of ``out``; without ``in_place`` differentiable with respect to nodes, weights, projection and
        ``out``.

    Raises:
        ValueError: shapes do not fit, a place is outside ``out`` (seen on the CPU only; on a GPU it is left out), or
            ``in_place`` where a gradient is asked for or ``out`` is not contiguous.
    """
    if len(rows) != graph.num_nodes or len(positions) != graph.num_nodes:
        raise ValueError(f"{len(rows)} rows and {len(positions)} positions for {graph.num_nodes} nodes")
    if projection.shape != (out.shape[2], weights.dimension):
        raise ValueError(f"projection is {tuple(projection.shape)}, out and weights need {(out.shape[2], weights.dimension)}")
    if in_place:
        _check_in_place(out, nodes, projection, *weights)
    if out.device.type == "cpu" and not torch.compiler.is_compiling():
        inside = (rows < out.shape[0]) & (positions >= 0) & (positions < out.shape[1])
        if not bool(torch.where(rows >= 0, inside, True).all()):
            raise ValueError(f"a place is outside the {out.shape[0]} prompts of {out.shape[1]} positions")
    different = f"nodes are {nodes.dtype}, projection {projection.dtype}" if nodes.dtype != projection.dtype else ""
    unsupported = _unsupported(nodes, weights) or different
    if num_layers > 0 and graph.num_nodes > 0:
        _check_layers(nodes, graph, weights, num_layers, edge_weights)
        if chosen_path("gated_graph_project_into", ("torch", "triton"), nodes, unsupported) == "triton":
            from kernels.gated_graph.project_path import gated_graph_project_into_triton

            return gated_graph_project_into_triton(
                nodes, graph, folded(weights), num_layers, projection, out, rows, positions, edge_weights, in_place
            )
    hidden = gated_graph_layers(nodes, graph, weights, num_layers, edge_weights)
    if out.device.type != "cpu":
        return placed((hidden @ projection.T).to(out.dtype), out, rows, positions, in_place)
    chosen = torch.nonzero(rows >= 0).squeeze(1)
    projected = (hidden[chosen] @ projection.T).to(out.dtype)
    places = (rows[chosen], positions[chosen])
    return out.index_put_(places, projected) if in_place else out.index_put(places, projected)


def _check_in_place(out: torch.Tensor, *others: torch.Tensor) -> None:
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (out, *others)):
        raise ValueError("in_place has no gradient: leave it out, or call under torch.no_grad()")
    if not out.is_contiguous():
        raise ValueError("in_place needs a contiguous out")


def gated_graph_project_pooled(
    nodes: torch.Tensor,
    graph: SessionGraph,
    weights: GatedGraphWeights | FoldedGraphWeights,
    num_layers: int,
    readout: ReadoutWeights,
    projection: torch.Tensor,
    edge_weights: EdgeWeights = "binary",
) -> torch.Tensor:
    """Run the layers, read each session out, and project its vector: W_p z_s.

    Args:
        nodes: float [N, d].
        graph: B session graphs with N nodes.
        weights: of the gated layer.
        num_layers: L.
        readout: of the attention readout.
        projection: float [D, d], W_p.
        edge_weights: as for ``gated_graph_layers``.

    Returns:
        float [B, D]; zeros for an empty session.
    """
    hidden = gated_graph_layers(nodes, graph, weights, num_layers, edge_weights)
    return attention_readout(hidden, graph, readout) @ projection.T
