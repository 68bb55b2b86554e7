"""HCGR (Guo et al. 2021): a session graph attended to in hyperbolic space, trained with a contrastive ranking loss."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

import kernels
from kernels import SessionGraph
from kernels.segments import segment_expand, segment_sum
from llmgr_core.encoders import lorentz
from llmgr_core.encoders.encoder import SessionEncoder
from llmgr_core.encoders.ragged_rows import zero_where_empty
from llmgr_core.graphs import SessionBatch
from llmgr_core.settings.encoder import EncoderSettings


class HCGR(SessionEncoder):
    """Session graphs on the hyperboloid (see ``lorentz``), after "HCGR: Hyperbolic Contrastive Graph Representation Learning
    for Session-based Recommendation" (arXiv 2107.05366; TKDE 2023).

    The authors published no code, and this is written from the paper's abstract and outline, not its equations. Theirs are:
    items on the Lorentz hyperboloid, an adaptive hyperbolic attention that aggregates the messages of the session graph, and a
    contrastive loss on the geodesic distances of the true item and of others beside the cross-entropy. The formulas are this
    project's, in the usual constructions: maps through the tangent space at the origin o as in HGCN (Chami et al. 2019),
    attention by squared distance as in LGCN (Zhang et al. 2021), edges and readout as in SR-GNN. With t = log_o(h):

        h_v    = exp_o(x_v)
        q_e    = exp_o(W_D t_u + b_D)                          for an edge e of v, whose other end is u; D is in or out
        alpha  = softmax over the edges of v, arriving and leaving, of  ln w_e - exp(s) d_L(h_v, q_e)^2
        h_v    = exp_o(t_v + tanh(sum_e alpha_e log_o(q_e)))                  L layers, each with weights of its own
        g, k_i = exp_o(W_q t_last + b_q), exp_o(W_k t_i + b_k)
        beta   = softmax over the nodes i of the session of  ln n_i - exp(s) d_L(g, k_i)^2
        z_s    = W_3 [sum_i beta_i t_i ; t_last] + b_3

    w_e is the multiplicity of the edge, n_i the clicks of the node; both are 1 with ``edges = "binary"``. The learned exp(s)
    is what adapts. z_s is a tangent vector at the origin and stands for the point exp_o(z_s), an empty session's for o itself.
    Curvature is -1, and points stay within LARGEST_RADIUS of the origin, where float32 still tells their distances.

    Items are scored by ``ItemLogits`` of kind "lorentz", which ranks as -d_L does. The contrastive loss is a hinge that takes
    the other targets n of the batch as negatives, weighed by ``settings.contrast``:

        mean over sessions s with target p, and n other than p, of  max(0, margin + d_L(z_s, x_p) - d_L(z_s, x_n))
    """

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__(settings)
        d = settings.dimension
        self.layers = nn.ModuleList(_Layer(d) for _ in range(settings.layers))
        self.query = nn.Linear(d, d)
        self.key = nn.Linear(d, d)
        self.log_sharpness = nn.Parameter(torch.zeros(()))
        self.output = nn.Linear(2 * d, d)

    def forward(self, node_vectors: Tensor, batch: SessionBatch) -> Tensor:
        graph, tangents = batch.graph, lorentz.within_reach(self.dropout(node_vectors))
        if graph.num_nodes == 0:
            return node_vectors.new_zeros(graph.num_sessions, self.settings.dimension)
        weighted = self.settings.edges == "multiplicity"
        ends = _ends_of_edges(graph, weighted)
        for layer in self.layers:
            tangents = layer(tangents, ends)
        clicks = graph.node_clicks if weighted else torch.ones_like(graph.node_clicks)
        everyone = torch.arange(graph.num_nodes, device=graph.device)
        members = _Members(graph.node_session, everyone, graph.node_offsets, clicks.log())
        last = kernels.item_rows(tangents, graph.last_node.clamp(min=0))
        query, keys = lorentz.from_origin(self.query(last)), lorentz.from_origin(self.key(tangents))
        attended = _attended(query, keys, tangents, members, self.log_sharpness)
        vectors: Tensor = self.output(torch.cat([attended, last], dim=1))
        return zero_where_empty(vectors, batch)

    def auxiliary_loss(self, session_vectors: Tensor, item_rows: Tensor, targets: Tensor) -> Tensor | None:
        if self.settings.contrast == 0.0:
            return None
        sessions = lorentz.from_origin(session_vectors)
        items = lorentz.from_origin(kernels.item_rows(item_rows, targets))
        apart = lorentz.distance_from_square(-2.0 - 2.0 * sessions @ lorentz.mirrored(items).T)
        other = targets[:, None] != targets
        hinges = torch.relu(self.settings.margin + apart.diagonal()[:, None] - apart) * other
        return self.settings.contrast * hinges.sum() / other.sum().clamp(min=1)


class _Members(NamedTuple):
    """Who attends to what: pairs of a group and a member.

    Attributes:
        group: int64 [P], sorted.
        member: int64 [P].
        offsets: int64 [G + 1], first pair of each group.
        bias: float [P], added to the logit of each pair.
    """

    group: Tensor
    member: Tensor
    offsets: Tensor
    bias: Tensor


def _ends_of_edges(graph: SessionGraph, weighted: bool) -> _Members:
    """For each node the other ends of its edges: node u for an arriving edge (u, v), N + u for a leaving one (v, u)."""
    group = torch.cat([graph.edge_target, graph.edge_source])
    order = torch.argsort(group, stable=True)
    member = torch.cat([graph.edge_source, graph.edge_target + graph.num_nodes])
    weight = graph.edge_weight if weighted else torch.ones_like(graph.edge_weight)
    return _Members(group[order], member[order], graph.source_offsets + graph.target_offsets, weight.log().repeat(2)[order])


class _Layer(nn.Module):
    """One round of messages along the edges: tangent vectors [N, d] -> [N, d]."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.arriving = nn.Linear(dimension, dimension)
        self.leaving = nn.Linear(dimension, dimension)
        self.log_sharpness = nn.Parameter(torch.zeros(()))

    def forward(self, tangents: Tensor, ends: _Members) -> Tensor:
        messages = lorentz.within_reach(torch.cat([self.arriving(tangents), self.leaving(tangents)]))
        points, keys = lorentz.from_origin(tangents), lorentz.from_origin(messages)
        return lorentz.within_reach(tangents + torch.tanh(_attended(points, keys, messages, ends, self.log_sharpness)))


def _attended(points: Tensor, keys: Tensor, values: Tensor, members: _Members, log_sharpness: Tensor) -> Tensor:
    """Mean of the members' values under softmax(bias - exp(log_sharpness) d_L(point, key)^2).

    Args:
        points: float [G, d + 1], of each group.
        keys: float [M, d + 1], of each member.
        values: float [M, d].
        members: who belongs where.
        log_sharpness: float scalar.

    Returns:
        float [G, d]; zeros for a group without members.
    """
    group, member, offsets, bias = members
    apart = lorentz.distance(segment_expand(points, group, offsets), kernels.item_rows(keys, member))
    logits = bias.to(apart) - log_sharpness.exp() * apart.square()
    largest = logits.new_zeros(len(points)).scatter_reduce(0, group, logits.detach(), "amax", include_self=False)
    weights = (logits - largest[group]).exp()[:, None]
    total = segment_sum(weights, group, offsets).clamp(min=torch.finfo(weights.dtype).tiny)
    return segment_sum(kernels.item_rows(values, member) * weights, group, offsets) / total
