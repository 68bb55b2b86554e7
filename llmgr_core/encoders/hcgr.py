"""HCGR (Guo et al. 2021): a session graph attended to in hyperbolic space, trained with a contrastive ranking loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import kernels
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
        q_u    = exp_o(W_D t_u + b_D)                          for D in {in, out}, arriving and leaving edges apart
        alpha  = softmax over the neighbours u of v along D of  ln w_uv - exp(s_D) d_L(h_v, q_u)^2
        h_v    = exp_o(t_v + tanh(sum_D sum_u alpha_vu log_o(q_u)))           L layers, each with weights of its own
        g, k_i = exp_o(W_q t_last + b_q), exp_o(W_k t_i + b_k)
        beta   = softmax over the nodes i of the session of  ln n_i - exp(s) d_L(g, k_i)^2
        z_s    = W_3 [sum_i beta_i t_i ; t_last] + b_3

    w_uv is the multiplicity of the edge, n_i the clicks of the node; both are 1 with ``edges = "binary"``. The learned exp(s)
    is what adapts. z_s is a tangent vector at the origin and stands for the point exp_o(z_s), an empty session's for o itself.
    Curvature is -1, and points stay within LARGEST_RADIUS of the origin, where float32 still tells their distances.

    Items are scored by ``ItemLogits`` of kind "lorentz", which ranks as -d_L does. The contrastive loss is a hinge that takes
    the other targets n of the batch as negatives, weighed by ``settings.contrast``:

        mean over sessions s with target p, and n other than p, of  max(0, margin + d_L(z_s, x_p) - d_L(z_s, x_n))
    """

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__(settings)
        d = settings.dimension
        self.arriving = nn.ModuleList(_Attention(d) for _ in range(settings.layers))
        self.leaving = nn.ModuleList(_Attention(d) for _ in range(settings.layers))
        self.query = nn.Linear(d, d)
        self.readout = _Attention(d)
        self.output = nn.Linear(2 * d, d)

    def forward(self, node_vectors: Tensor, batch: SessionBatch) -> Tensor:
        graph, tangents = batch.graph, lorentz.within_reach(self.dropout(node_vectors))
        if graph.num_nodes == 0:
            return node_vectors.new_zeros(graph.num_sessions, self.settings.dimension)
        weighted = self.settings.edges == "multiplicity"
        edge_bias = graph.edge_weight.log().to(tangents) if weighted else tangents.new_zeros(graph.num_edges)
        node_bias = graph.node_clicks.log().to(tangents) if weighted else tangents.new_zeros(graph.num_nodes)
        order = graph.target_order
        sources, targets = graph.edge_source, graph.edge_target
        for arriving, leaving in zip(self.arriving, self.leaving, strict=True):
            points = lorentz.from_origin(tangents)
            came = arriving(points, tangents, targets[order], sources[order], graph.target_offsets, edge_bias[order])
            left = leaving(points, tangents, sources, targets, graph.source_offsets, edge_bias)
            tangents = lorentz.within_reach(tangents + torch.tanh(came + left))
        last = kernels.item_rows(tangents, graph.last_node.clamp(min=0))
        query = lorentz.from_origin(self.query(last))
        everyone = torch.arange(graph.num_nodes, device=graph.device)
        attended = self.readout(query, tangents, graph.node_session, everyone, graph.node_offsets, node_bias, values=tangents)
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


class _Attention(nn.Module):
    """Attention by squared hyperbolic distance between the points of groups and the mapped vectors of their members."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dimension, dimension)
        self.log_sharpness = nn.Parameter(torch.zeros(()))

    def forward(
        self,
        points: Tensor,
        tangents: Tensor,
        group: Tensor,
        member: Tensor,
        offsets: Tensor,
        bias: Tensor,
        values: Tensor | None = None,
    ) -> Tensor:
        """What each group attends to.

        Args:
            points: float [G, d + 1], a point for each group.
            tangents: float [N, d], of all nodes.
            group: int64 [P], sorted, group of each pair.
            member: int64 [P], node of each pair.
            offsets: int64 [G + 1], first pair of each group.
            bias: float [P], added to the logit of each pair.
            values: float [N, d], what is averaged; the mapped tangents if None.

        Returns:
            float [G, d]; zeros for a group without members.
        """
        mapped = lorentz.within_reach(self.linear(tangents))
        asked = segment_expand(points, group, offsets)
        apart = lorentz.distance(asked, kernels.item_rows(lorentz.from_origin(mapped), member))
        logits = bias - self.log_sharpness.exp() * apart.square()
        largest = logits.new_zeros(len(points)).scatter_reduce(0, group, logits.detach(), "amax", include_self=False)
        weights = (logits - largest[group]).exp()
        total = segment_sum(weights[:, None], group, offsets).clamp(min=torch.finfo(weights.dtype).tiny)
        sums = segment_sum(kernels.item_rows(mapped if values is None else values, member) * weights[:, None], group, offsets)
        return sums / total
