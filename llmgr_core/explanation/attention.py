"""How much of its attention an encoder gives to each click."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import kernels
from llmgr_core.encoders.bsarec import BSARec
from llmgr_core.encoders.encoder import SessionEncoder
from llmgr_core.encoders.gcsan import GCSAN
from llmgr_core.encoders.narm import NARM
from llmgr_core.encoders.sasrec import SASRec
from llmgr_core.encoders.srgnn import SRGNN
from llmgr_core.encoders.stamp import STAMP
from llmgr_core.graphs import SessionBatch
from llmgr_core.ranker.online import OnlineRanker
from llmgr_core.ranker.stored import StoredRanker
from llmgr_core.sessions import Sessions

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Attention:
    """Attention of one session.

    Attributes:
        weights: float32 [t], one a click that was encoded, as the encoder computes them; None where it has none.
        meaning: which weights these are, for people; or why there are none.
    """

    weights: Floats | None
    meaning: str

    @property
    def shares(self) -> Floats | None:
        """Weights over the sum of their absolute values, float32 [t]: SR-GNN, STAMP and NARM have negative ones too."""
        if self.weights is None:
            return None
        shares: Floats = self.weights / np.maximum(np.abs(self.weights).sum(), np.finfo(np.float32).tiny)
        return shares


class AttentionReader:
    """Reads the attention of a trained ranker's encoder.

    Args:
        stored: the trained ranker.
    """

    def __init__(self, stored: StoredRanker) -> None:
        self._encoder: SessionEncoder = OnlineRanker.from_stored(stored).encoder

    @torch.no_grad()
    def read(self, nodes: Floats, click_nodes: npt.NDArray[np.int64]) -> Attention:
        """Attention to the clicks of one session.

        Args:
            nodes: rows c_v of its distinct items, float32 [n, d].
            click_nodes: int64 [t], the row of each click, t >= 1; no more than the encoder reads.
        """
        batch = SessionBatch.from_sessions(Sessions.from_lists([click_nodes.tolist()]))
        # The batch orders nodes in its own way.
        rows = torch.from_numpy(nodes)[batch.node_items.long()]
        encoder = self._encoder
        if isinstance(encoder, SRGNN):
            weights, meaning = _readout(encoder, rows, batch), "readout weights alpha, which add up to no fixed sum"
        elif isinstance(encoder, GCSAN):
            weights = _gcsan(encoder, rows, batch)
            meaning = "attention of the last click in the last block; the last click also enters z_s directly"
        elif isinstance(encoder, SASRec | BSARec):
            weights = _click_attention(encoder, rows, batch)
            meaning = "attention of the last click in the last block; the last click also enters z_s directly"
        elif isinstance(encoder, STAMP | NARM):
            weights = _output_of(encoder.priority if isinstance(encoder, STAMP) else encoder.attention, encoder, rows, batch)[
                :, 0
            ]
            meaning = "attention weights around the last click, which add up to no fixed sum"
        else:
            return Attention(None, f"{encoder.settings.name} has no attention; occlusion says what each click does")
        return Attention(weights.numpy().astype(np.float32), meaning)


def _readout(encoder: SRGNN, rows: Tensor, batch: SessionBatch) -> Tensor:
    """alpha_i = q . sigmoid(W_1 x_last + W_2 x_i + c) of each click (Wu et al. 2019, eq. 6)."""
    settings, weights = encoder.settings, encoder.readout()
    x = kernels.gated_graph_layers(rows, batch.graph, encoder.graph_layer(), settings.layers, settings.edges)
    last = x[batch.graph.last_node]
    alpha: Tensor = torch.sigmoid(last @ weights.last.T + x @ weights.node.T + weights.bias) @ weights.score
    return alpha[batch.click_nodes]


def _gcsan(encoder: GCSAN, rows: Tensor, batch: SessionBatch) -> Tensor:
    """softmax(q_last K^T / sqrt(d / heads)), mean over the heads of the last block (Xu et al. 2019, eq. 8)."""
    settings = encoder.settings
    x = kernels.gated_graph_layers(rows, batch.graph, encoder.graph_layer(), settings.layers, settings.edges)
    clicks = x[batch.click_nodes]
    if encoder.positions is not None:
        clicks = clicks + encoder.positions[: len(clicks)].flip(0)
    blocks = [block() for block in encoder.blocks]
    for weights in blocks[:-1]:
        clicks = kernels.session_attention(clicks, batch.click_offsets, weights, settings.attention_heads)
    query, key, _ = (clicks @ blocks[-1].query_key_value.T + blocks[-1].query_key_value_bias).chunk(3, dim=1)
    return _softmax_of_last(query[-1:], key, settings.attention_heads)


def _click_attention(encoder: SASRec | BSARec, rows: Tensor, batch: SessionBatch) -> Tensor:
    attention: Any = encoder.blocks[-1].attention
    seen: list[tuple[Tensor, Tensor]] = []
    handle = attention.register_forward_pre_hook(lambda _, inputs: seen.append((inputs[0], inputs[1])))
    try:
        encoder(rows, batch)
    finally:
        handle.remove()
    queries, keys = seen[0]
    return _softmax_of_last(attention.query(queries[-1:]), attention.key(keys), attention.heads)


def _softmax_of_last(query: Tensor, key: Tensor, heads: int) -> Tensor:
    """[1, d] and [t, d] -> [t], the mean over heads."""
    t, d = key.shape
    scores = torch.einsum("hk,thk->ht", query.view(heads, d // heads), key.view(t, heads, d // heads)) / (d // heads) ** 0.5
    return torch.softmax(scores, dim=1).mean(dim=0)


def _output_of(module: torch.nn.Module, encoder: SessionEncoder, rows: Tensor, batch: SessionBatch) -> Tensor:
    seen: list[Tensor] = []
    handle = module.register_forward_hook(lambda _, inputs, output: seen.append(output))
    try:
        encoder(rows, batch)
    finally:
        handle.remove()
    return seen[0]
