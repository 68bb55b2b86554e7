"""Published encoders as their formulas read: one session at a time, in float64, with loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from llmgr_core.encoders import Backbone


def weights_of(model: Backbone) -> dict[str, np.ndarray]:
    """Weights in float64, names without "encoder."."""
    return {name.removeprefix("encoder."): tensor.detach().double().numpy() for name, tensor in model.named_parameters()}


def distinct(session: list[int]) -> list[int]:
    return list(dict.fromkeys(session))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(np.asarray(x) - np.max(x))
    return e / e.sum()


def niser(model: Backbone, session: list[int]) -> np.ndarray:
    """One gated layer over the normalised vectors with SR-GNN's row-normalised adjacency, the readout over h_i + p_i."""
    w, items = weights_of(model), distinct(session)
    unit = [w["item_table"][item] / np.linalg.norm(w["item_table"][item]) for item in items]
    adjacency = np.zeros((len(items), len(items)))
    for one, following in pairwise(session):
        adjacency[items.index(one), items.index(following)] += 1
    arriving = adjacency.T / np.maximum(adjacency.sum(0), 1)[:, None]
    leaving = adjacency / np.maximum(adjacency.sum(1), 1)[:, None]
    x = np.array(unit)
    layer = {name.removeprefix("graph_layer."): value for name, value in w.items() if name.startswith("graph_layer.")}
    came = arriving @ (x @ layer["edge_in"].T + layer["edge_in_bias"])
    left = leaving @ (x @ layer["edge_out"].T + layer["edge_out_bias"])
    gates = np.concatenate([came, left], 1) @ layer["gate_input"].T + layer["gate_input_bias"]
    hidden = x @ layer["gate_hidden"].T + layer["gate_hidden_bias"]
    (r_in, u_in, n_in), (r_h, u_h, n_h) = np.split(gates, 3, 1), np.split(hidden, 3, 1)
    reset, update = sigmoid(r_in + r_h), sigmoid(u_in + u_h)
    new = np.tanh(n_in + reset * n_h)
    h = new + update * (x - new)
    clicks = []
    for place, item in enumerate(session):
        position = w["positions"][len(session) - 1 - place] if "positions" in w else 0
        clicks.append(h[items.index(item)] + position)
    readout = {name.removeprefix("readout."): value for name, value in w.items() if name.startswith("readout.")}
    attended = np.zeros(model.settings.dimension)
    for click in clicks:
        gate = sigmoid(readout["last"] @ clicks[-1] + readout["node"] @ click + readout["bias"])
        attended += (readout["score"] @ gate) * click
    z = readout["output"] @ np.concatenate([attended, clicks[-1]]) + readout["output_bias"]
    return z / np.linalg.norm(z)


def fpmc(model: Backbone, session: list[int]) -> np.ndarray:
    return weights_of(model)["last_item"][session[-1]]


def caser(model: Backbone, session: list[int]) -> np.ndarray:
    """Filters slid over the last clicks by hand."""
    w, size = weights_of(model), model.settings.window
    image = np.zeros((size, model.settings.dimension))
    for row, item in enumerate(session[::-1][:size]):
        image[size - 1 - row] = w["item_table"][item]
    seen = []
    for height in range(1, size + 1):
        weight, bias = w[f"horizontal.{height - 1}.weight"], w[f"horizontal.{height - 1}.bias"]
        for k in range(model.settings.horizontal_filters):
            filter_ = weight[k].reshape(height, -1)
            values = [max(0.0, (image[i : i + height] * filter_).sum() + bias[k]) for i in range(size - height + 1)]
            seen.append(max(values))
    for k in range(model.settings.vertical_filters):
        seen.extend(w["vertical.weight"][k] @ image)
    hidden = np.maximum(w["joined.weight"] @ np.array(seen) + w["joined.bias"], 0)
    return w["output.weight"] @ hidden + w["output.bias"]


def exp_o(v):
    r = max(np.linalg.norm(v), 1e-12)
    return np.concatenate([[np.cosh(r)], np.sinh(r) * v / r])


def log_o(x):
    return np.arccosh(x[0]) * x[1:] / np.linalg.norm(x[1:])


def d_l(x, y):
    return np.arccosh(x[0] * y[0] - x[1:] @ y[1:])


def hcgr(model: Backbone, session: list[int]) -> np.ndarray:
    """The formulas of the docstring with points, distances and both maps at every step."""
    w, items = weights_of(model), distinct(session)
    edges: dict[tuple[int, int], int] = {}
    for one, following in pairwise(session):
        edge = (items.index(one), items.index(following))
        edges[edge] = edges.get(edge, 0) + 1
    h = [exp_o(w["item_table"][item]) for item in items]

    def mapped(label, x):
        return exp_o(w[f"{label}.weight"] @ log_o(x) + w[f"{label}.bias"])

    for layer in range(model.settings.layers):
        moved = []
        for v, h_v in enumerate(h):
            near = [(f"layers.{layer}.arriving", u, c) for (u, t), c in edges.items() if t == v]
            near += [(f"layers.{layer}.leaving", u, c) for (s, u), c in edges.items() if s == v]
            message = np.zeros(model.settings.dimension)
            if near:
                q = [mapped(label, h[u]) for label, u, _ in near]
                sharpness = math.exp(w[f"layers.{layer}.log_sharpness"])
                logits = [math.log(c) - sharpness * d_l(h_v, x) ** 2 for x, (_, _, c) in zip(q, near, strict=True)]
                message = sum(a * log_o(x) for a, x in zip(softmax(logits), q, strict=True))
            moved.append(exp_o(log_o(h_v) + np.tanh(message)))
        h = moved
    last = h[items.index(session[-1])]
    query, sharpness = mapped("query", last), math.exp(w["log_sharpness"])
    logits = [
        math.log(session.count(item)) - sharpness * d_l(query, mapped("key", x)) ** 2 for item, x in zip(items, h, strict=True)
    ]
    attended = sum(b * log_o(x) for b, x in zip(softmax(logits), h, strict=True))
    return w["output.weight"] @ np.concatenate([attended, log_o(last)]) + w["output.bias"]


REFERENCES: dict[str, Callable[[Backbone, list[int]], np.ndarray]] = {
    "niser": niser,
    "fpmc": fpmc,
    "caser": caser,
    "hcgr": hcgr,
}
