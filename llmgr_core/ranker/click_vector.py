"""z_s of one session in NumPy for the encoders that read clicks in a row: GRU4Rec, STAMP, NARM, SASRec and BSARec."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from llmgr_core.ranker.dense_layers import Floats, Tensors, gelu, layer_norm, sigmoid, transposed
from llmgr_core.ranker.parts import SessionVector
from llmgr_core.settings.encoder import EncoderSettings

# Of torch's LayerNorm.
NORM_EPSILON = 1e-5


def gru4rec(settings: EncoderSettings, tensors: Tensors) -> SessionVector:
    """See llmgr_core.encoders.gru4rec."""
    states = _gru(tensors)

    def encode(nodes: Floats, click_nodes: npt.NDArray[np.int64]) -> Floats:
        last: Floats = states(nodes[click_nodes])[-1]
        return last

    return encode


def narm(settings: EncoderSettings, tensors: Tensors) -> SessionVector:
    """See llmgr_core.encoders.narm."""
    states = _gru(tensors)
    last_map, click_map = transposed(tensors["encoder.of_last.weight"]), transposed(tensors["encoder.of_click.weight"])
    attention, decoder = tensors["encoder.attention.weight"][0], tensors["encoder.decoder.weight"]

    def encode(nodes: Floats, click_nodes: npt.NDArray[np.int64]) -> Floats:
        rows = states(nodes[click_nodes])
        share = sigmoid(rows[-1] @ last_map + rows @ click_map) @ attention
        z: Floats = decoder @ np.concatenate((rows[-1], share @ rows))
        return z

    return encode


def stamp(settings: EncoderSettings, tensors: Tensors) -> SessionVector:
    """See llmgr_core.encoders.stamp."""
    maps = {name: transposed(tensors[f"encoder.{name}.weight"]) for name in ("of_click", "of_last", "of_mean")}
    maps |= {name: transposed(tensors[f"encoder.{name}.weight"]) for name in ("memory", "short_term")}
    biases = {name: tensors[f"encoder.{name}.bias"] for name in ("of_mean", "memory", "short_term")}
    priority = tensors["encoder.priority.weight"][0]

    def encode(nodes: Floats, click_nodes: npt.NDArray[np.int64]) -> Floats:
        rows = nodes[click_nodes]
        last = rows[-1]
        context = last @ maps["of_last"] + rows.mean(axis=0) @ maps["of_mean"] + biases["of_mean"]
        memory = (sigmoid(rows @ maps["of_click"] + context) @ priority) @ rows
        h_s = np.tanh(memory @ maps["memory"] + biases["memory"])
        z: Floats = h_s * np.tanh(last @ maps["short_term"] + biases["short_term"])
        return z

    return encode


def sasrec(settings: EncoderSettings, tensors: Tensors) -> SessionVector:
    """See llmgr_core.encoders.sasrec."""
    positions = tensors.get("encoder.positions.vectors")
    factor = np.float32(math.sqrt(settings.dimension))
    norm = _norm(tensors, "encoder.norm")
    blocks = [_sasrec_block(settings, tensors, f"encoder.blocks.{n}.") for n in range(settings.attention_layers)]

    def encode(nodes: Floats, click_nodes: npt.NDArray[np.int64]) -> Floats:
        rows = factor * _placed(nodes[click_nodes], positions)
        for block in blocks[:-1]:
            rows = block(rows, len(rows))
        vector: Floats = norm(blocks[-1](rows, 1))[0]
        return vector

    return encode


def bsarec(settings: EncoderSettings, tensors: Tensors) -> SessionVector:
    """See llmgr_core.encoders.bsarec."""
    positions = tensors.get("encoder.positions.vectors")
    norm = _norm(tensors, "encoder.norm")
    blocks = [_bsarec_block(settings, tensors, f"encoder.blocks.{n}.") for n in range(settings.attention_layers)]

    def encode(nodes: Floats, click_nodes: npt.NDArray[np.int64]) -> Floats:
        rows = norm(_placed(nodes[click_nodes], positions))
        for block in blocks[:-1]:
            rows = block(rows, len(rows))
        vector: Floats = blocks[-1](rows, 1)[0]
        return vector

    return encode


# From all rows [n, d] and m, how many of the last are asked for, to [m, d].
_Block = Callable[[Floats, int], Floats]


def _sasrec_block(settings: EncoderSettings, tensors: Tensors, name: str) -> _Block:
    attention = _attention(settings, tensors, name + "attention.")
    attention_norm = _norm(tensors, name + "attention_norm")
    feed_forward_norm = _norm(tensors, name + "feed_forward_norm")
    inner, inner_bias = transposed(tensors[name + "inner.weight"]), tensors[name + "inner.bias"]
    outer, outer_bias = transposed(tensors[name + "outer.weight"]), tensors[name + "outer.bias"]

    def block(rows: Floats, asked: int) -> Floats:
        rows = rows[-asked:] + attention(attention_norm(rows), asked)
        hidden = np.maximum(feed_forward_norm(rows) @ inner + inner_bias, 0.0)
        fed: Floats = rows + (hidden @ outer + outer_bias)
        return fed

    return block


def _bsarec_block(settings: EncoderSettings, tensors: Tensors, name: str) -> _Block:
    attention = _attention(settings, tensors, name + "attention.")
    output, output_bias = transposed(tensors[name + "output.weight"]), tensors[name + "output.bias"]
    inner, inner_bias = transposed(tensors[name + "inner.weight"]), tensors[name + "inner.bias"]
    outer, outer_bias = transposed(tensors[name + "outer.weight"]), tensors[name + "outer.bias"]
    norms = [_norm(tensors, name + part) for part in ("filter_norm", "attention_norm", "feed_forward_norm")]
    high_share = tensors[name + "filter.beta"] ** 2
    share, rest = np.float32(settings.filter_share), np.float32(1.0 - settings.filter_share)
    place = np.arange(settings.max_clicks)
    passed = np.minimum(place, settings.max_clicks - place) <= settings.frequencies // 2
    kernel = np.fft.ifft(passed).real[(place[:, None] - place) % settings.max_clicks].astype(np.float32)

    def block(rows: Floats, asked: int) -> Floats:
        n = len(rows)
        own = rows[-asked:]
        low = kernel[n - asked : n, :n] @ rows
        filtered = norms[0](own + low + high_share * (own - low))
        attended = norms[1](own + attention(rows, asked) @ output + output_bias)
        mixed = share * filtered + rest * attended
        return norms[2](mixed + gelu(mixed @ inner + inner_bias) @ outer + outer_bias)

    return block


def _attention(settings: EncoderSettings, tensors: Tensors, name: str) -> _Block:
    heads = settings.attention_heads
    width = settings.dimension // heads
    query = transposed(tensors[name + "query.weight"]) * np.float32(width**-0.5)
    key, value = transposed(tensors[name + "key.weight"]), transposed(tensors[name + "value.weight"])

    def attend(rows: Floats, asked: int) -> Floats:
        n = len(rows)
        queries = (rows[-asked:] @ query).reshape(asked, heads, width).transpose(1, 0, 2)
        keys = (rows @ key).reshape(n, heads, width).transpose(1, 2, 0)
        values = (rows @ value).reshape(n, heads, width).transpose(1, 0, 2)
        scores = queries @ keys
        if asked > 1:
            scores[:, ~np.tri(asked, n, n - asked, dtype=bool)] = -np.inf
        scores = np.exp(scores - scores.max(axis=2, keepdims=True))
        scores /= scores.sum(axis=2, keepdims=True)
        attended: Floats = (scores @ values).transpose(1, 0, 2).reshape(asked, heads * width)
        return attended

    return attend


def _gru(tensors: Tensors) -> Callable[[Floats], Floats]:
    """States after each click: [n, d] -> [n, d]."""
    name = "encoder.recurrence.gru."
    of_click, of_state = transposed(tensors[name + "weight_ih_l0"]), transposed(tensors[name + "weight_hh_l0"])
    click_bias, state_bias = tensors[name + "bias_ih_l0"], tensors[name + "bias_hh_l0"]
    d = len(of_state)

    def states(rows: Floats) -> Floats:
        from_clicks = rows @ of_click + click_bias
        state, out = np.zeros(d, dtype=np.float32), np.empty_like(rows)
        for place, gates in enumerate(from_clicks):
            hidden = state @ of_state + state_bias
            switch = sigmoid(gates[: 2 * d] + hidden[: 2 * d])
            new = np.tanh(gates[2 * d :] + switch[:d] * hidden[2 * d :])
            state = new + switch[d:] * (state - new)
            out[place] = state
        return out

    return states


def _norm(tensors: Tensors, name: str) -> Callable[[Floats], Floats]:
    gain, shift = tensors[name + ".weight"], tensors[name + ".bias"]
    return lambda rows: layer_norm(rows, gain, shift, NORM_EPSILON)


def _placed(rows: Floats, positions: Floats | None) -> Floats:
    return rows if positions is None else rows + positions[: len(rows)][::-1]
