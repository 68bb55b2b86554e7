"""z_s of one session in NumPy: what the encoder modules compute, without the cost of a framework call per operation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from llmgr_core.errors import SettingsError
from llmgr_core.ranker import click_vector
from llmgr_core.ranker.dense_layers import Floats, Tensors, layer_norm, sigmoid, transposed
from llmgr_core.ranker.parts import SessionVector
from llmgr_core.settings.encoder import EncoderSettings

NORM_EPSILON = 1e-12


def build_session_vector(settings: EncoderSettings, tensors: Tensors) -> SessionVector:
    """The encoder that ``settings`` name, followed by the head, with the weights of an OnlineRanker.

    Args:
        settings: encoder settings.
        tensors: float32 arrays by the names of the OnlineRanker's state.

    Raises:
        SettingsError: an encoder that has no form in NumPy.
    """
    if settings.name not in _ENCODERS:
        raise SettingsError(
            f'encoder.name = "{settings.name}" cannot be served',
            f"distil into one of {', '.join(_ENCODERS)}: --set distil.encoder.name=gcsan",
        )
    encode = _ENCODERS[settings.name](settings, tensors)
    if "head.inner.weight" not in tensors:
        return encode
    inner, inner_bias = transposed(tensors["head.inner.weight"]), tensors["head.inner.bias"]
    outer, outer_bias = transposed(tensors["head.outer.weight"]), tensors["head.outer.bias"]

    def session_vector(nodes: Floats, click_nodes: npt.NDArray[np.int64]) -> Floats:
        z = encode(nodes, click_nodes)
        moved: Floats = z + np.maximum(z @ inner + inner_bias, 0.0) @ outer + outer_bias
        return moved

    return session_vector


class _GatedLayers:
    """L gated layers (kernels.gated_graph), with the edge maps folded into the gates.

    gates = W_ih [a_in ; a_out] with a = M (x W^T + b) is [M_in x, M_out x, has_in, has_out] F for one matrix F.
    """

    def __init__(self, settings: EncoderSettings, tensors: Tensors) -> None:
        weights = {name: tensors[f"encoder.graph_layer.{name}"].astype(np.float64) for name in _GATED}
        d = settings.dimension
        gate_in, gate_out = weights["gate_input"][:, :d].T, weights["gate_input"][:, d:].T
        folded = [weights["edge_in"].T @ gate_in, weights["edge_out"].T @ gate_out]
        folded += [(weights["edge_in_bias"] @ gate_in)[None], (weights["edge_out_bias"] @ gate_out)[None]]
        self._incoming = np.concatenate(folded).astype(np.float32)
        self._incoming_bias = tensors["encoder.graph_layer.gate_input_bias"]
        self._hidden = transposed(tensors["encoder.graph_layer.gate_hidden"])
        self._hidden_bias = tensors["encoder.graph_layer.gate_hidden_bias"]
        self._dimension, self._layers, self._binary = d, settings.layers, settings.edges == "binary"

    def __call__(self, nodes: Floats, click_nodes: npt.NDArray[np.int64]) -> Floats:
        d, n = self._dimension, len(nodes)
        if not self._layers:
            return nodes
        pairs = click_nodes[1:] * n + click_nodes[:-1]
        arriving = np.bincount(pairs, minlength=n * n).reshape(n, n).astype(np.float32)
        if self._binary:
            np.minimum(arriving, 1.0, out=arriving)
        leaving = arriving.T
        mass_in, mass_out = arriving.sum(axis=1), leaving.sum(axis=1)
        arriving, leaving = arriving / np.maximum(mass_in, 1.0)[:, None], leaving / np.maximum(mass_out, 1.0)[:, None]
        inputs = np.empty((n, 2 * d + 2), dtype=np.float32)
        inputs[:, 2 * d] = mass_in > 0
        inputs[:, 2 * d + 1] = mass_out > 0
        for _ in range(self._layers):
            np.matmul(arriving, nodes, out=inputs[:, :d])
            np.matmul(leaving, nodes, out=inputs[:, d : 2 * d])
            gates = inputs @ self._incoming + self._incoming_bias
            hidden = nodes @ self._hidden + self._hidden_bias
            switch = sigmoid(gates[:, : 2 * d] + hidden[:, : 2 * d])
            new = np.tanh(gates[:, 2 * d :] + switch[:, :d] * hidden[:, 2 * d :])
            nodes = new + switch[:, d:] * (nodes - new)
        return nodes


def _srgnn(settings: EncoderSettings, tensors: Tensors) -> SessionVector:
    layers = _GatedLayers(settings, tensors)
    last_map, node_map = transposed(tensors["encoder.readout.last"]), transposed(tensors["encoder.readout.node"])
    bias, score = tensors["encoder.readout.bias"], tensors["encoder.readout.score"]
    output, output_bias = transposed(tensors["encoder.readout.output"]), tensors["encoder.readout.output_bias"]

    def encode(nodes: Floats, click_nodes: npt.NDArray[np.int64]) -> Floats:
        nodes = layers(nodes, click_nodes)
        last = nodes[click_nodes[-1]]
        alpha = sigmoid(nodes @ node_map + (last @ last_map + bias)) @ score
        alpha *= np.bincount(click_nodes, minlength=len(nodes)).astype(np.float32)
        z: Floats = np.concatenate((alpha @ nodes, last)) @ output + output_bias
        return z

    return encode


def _gcsan(settings: EncoderSettings, tensors: Tensors) -> SessionVector:
    layers = _GatedLayers(settings, tensors)
    blocks = [_AttentionBlock(settings, tensors, number) for number in range(settings.attention_layers)]
    positions = tensors.get("encoder.positions")
    share = np.float32(settings.attention_share)

    def encode(nodes: Floats, click_nodes: npt.NDArray[np.int64]) -> Floats:
        nodes = layers(nodes, click_nodes)
        rows = nodes[click_nodes]
        if positions is not None:
            rows += positions[: len(rows)][::-1]
        for block in blocks[:-1]:
            rows = block(rows, rows)
        mixed: Floats = share * blocks[-1](rows, rows[-1:])[0] + (np.float32(1.0) - share) * nodes[click_nodes[-1]]
        return mixed

    return encode


class _AttentionBlock:
    """One self-attention block (kernels.session_attention) for the last row or for all."""

    def __init__(self, settings: EncoderSettings, tensors: Tensors, number: int) -> None:
        named = {name: tensors[f"encoder.blocks.{number}.{name}"] for name in _ATTENTION}
        d, self._heads = settings.dimension, settings.attention_heads
        self._head_width = d // self._heads
        projection, bias = transposed(named["query_key_value"]), named["query_key_value_bias"]
        factor = np.float32(self._head_width**-0.5)
        self._query, self._query_bias = projection[:, :d] * factor, bias[:d] * factor
        self._key_value, self._key_value_bias = np.ascontiguousarray(projection[:, d:]), bias[d:]
        self._output, self._output_bias = transposed(named["output"]), named["output_bias"]
        self._inner, self._inner_bias = transposed(named["inner"]), named["inner_bias"]
        self._outer, self._outer_bias = transposed(named["outer"]), named["outer_bias"]
        self._attention_gain, self._attention_shift = named["attention_norm"]
        self._feed_forward_gain, self._feed_forward_shift = named["feed_forward_norm"]

    def __call__(self, rows: Floats, asking: Floats) -> Floats:
        heads, width = self._heads, self._head_width
        queries = (asking @ self._query + self._query_bias).reshape(len(asking), heads, width).transpose(1, 0, 2)
        both = (rows @ self._key_value + self._key_value_bias).reshape(len(rows), 2, heads, width)
        keys, values = both[:, 0].transpose(1, 2, 0), both[:, 1].transpose(1, 0, 2)
        scores = queries @ keys
        scores = np.exp(scores - scores.max(axis=2, keepdims=True))
        scores /= scores.sum(axis=2, keepdims=True)
        attended = (scores @ values).transpose(1, 0, 2).reshape(asking.shape)
        h = attended @ self._output + self._output_bias + asking
        h = layer_norm(h, self._attention_gain, self._attention_shift, NORM_EPSILON)
        moved = np.maximum(h @ self._inner + self._inner_bias, 0.0) @ self._outer + self._outer_bias
        return layer_norm(moved + h, self._feed_forward_gain, self._feed_forward_shift, NORM_EPSILON)


_GATED = ("edge_in", "edge_in_bias", "edge_out", "edge_out_bias", "gate_input")
_ATTENTION = (
    "query_key_value",
    "query_key_value_bias",
    "output",
    "output_bias",
    "attention_norm",
    "inner",
    "inner_bias",
    "outer",
    "outer_bias",
    "feed_forward_norm",
)

_ENCODERS: dict[str, Callable[[EncoderSettings, Tensors], SessionVector]] = {
    "gcsan": _gcsan,
    "srgnn": _srgnn,
    "gru4rec": click_vector.gru4rec,
    "stamp": click_vector.stamp,
    "narm": click_vector.narm,
    "sasrec": click_vector.sasrec,
    "bsarec": click_vector.bsarec,
}
