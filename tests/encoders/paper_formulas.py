"""Published encoders as their papers read: one session at a time, plain torch, no code of the project.

Each takes x, float [n, d] with n >= 1 (one row a click), the encoder's weights by name and its settings, and gives z_s [d].
"""

from __future__ import annotations

import math

import torch
from torch.nn.functional import gelu, layer_norm


def gru_states(x, w):
    """h_1 .. h_n (Cho et al. 2014, with torch's two biases): float [n, d]."""
    prefix = "recurrence.gru."
    h, states = torch.zeros_like(x[0]), []
    for click in x:
        from_click = w[prefix + "weight_ih_l0"] @ click + w[prefix + "bias_ih_l0"]
        from_state = w[prefix + "weight_hh_l0"] @ h + w[prefix + "bias_hh_l0"]
        (r_x, z_x, n_x), (r_h, z_h, n_h) = from_click.chunk(3), from_state.chunk(3)
        reset, update = torch.sigmoid(r_x + r_h), torch.sigmoid(z_x + z_h)
        h = update * h + (1 - update) * torch.tanh(n_x + reset * n_h)
        states.append(h)
    return torch.stack(states)


def gru4rec(x, w, settings):
    return gru_states(x, w)[-1]


def narm(x, w, settings):
    h = gru_states(x, w)
    local = torch.zeros_like(h[-1])
    for state in h:
        alpha = w["attention.weight"][0] @ torch.sigmoid(w["of_last.weight"] @ h[-1] + w["of_click.weight"] @ state)
        local = local + alpha * state
    return w["decoder.weight"] @ torch.cat([h[-1], local])


def stamp(x, w, settings):
    last, mean = x[-1], x.mean(0)
    memory = torch.zeros_like(last)
    for click in x:
        inner = w["of_click.weight"] @ click + w["of_last.weight"] @ last + w["of_mean.weight"] @ mean + w["of_mean.bias"]
        memory = memory + (w["priority.weight"][0] @ torch.sigmoid(inner)) * click
    h_s = torch.tanh(w["memory.weight"] @ memory + w["memory.bias"])
    h_t = torch.tanh(w["short_term.weight"] @ last + w["short_term.bias"])
    return h_s * h_t


def norm(x, w, name):
    return layer_norm(x, x.shape[-1:], w[name + ".weight"], w[name + ".bias"], 1e-5)


def with_positions(x, w, settings):
    if not settings.positions:
        return x
    return x + w["positions.vectors"][: len(x)].flip(0)


def causal_attention(queries, x, w, name, heads):
    width = x.shape[1] // heads
    q, k, v = queries @ w[name + ".query.weight"].T, x @ w[name + ".key.weight"].T, x @ w[name + ".value.weight"].T
    columns = []
    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        rows = []
        for i in range(len(x)):
            weights = torch.softmax(k[: i + 1, own] @ q[i, own] / math.sqrt(width), dim=0)
            rows.append(weights @ v[: i + 1, own])
        columns.append(torch.stack(rows))
    return torch.cat(columns, dim=1)


def sasrec(x, w, settings):
    x = math.sqrt(settings.dimension) * with_positions(x, w, settings)
    for number in range(settings.attention_layers):
        block = f"blocks.{number}."
        normed = norm(x, w, block + "attention_norm")
        x = x + causal_attention(normed, normed, w, block + "attention", settings.attention_heads)
        normed = norm(x, w, block + "feed_forward_norm")
        inner = torch.relu(normed @ w[block + "inner.weight"].T + w[block + "inner.bias"])
        x = x + inner @ w[block + "outer.weight"].T + w[block + "outer.bias"]
    return norm(x, w, "norm")[-1]


def frequency_filter(x, beta, max_clicks, frequencies):
    """Zeros in front up to N clicks, discrete Fourier transform, all but the lowest frequencies scaled by beta^2."""
    padded = torch.cat([x.new_zeros(max_clicks - len(x), x.shape[1]), x])
    spectrum = torch.fft.rfft(padded, dim=0)
    spectrum[frequencies // 2 + 1 :] = 0
    low = torch.fft.irfft(spectrum, n=max_clicks, dim=0)
    return (low + beta**2 * (padded - low))[max_clicks - len(x) :]


def bsarec(x, w, settings):
    x = norm(with_positions(x, w, settings), w, "norm")
    for number in range(settings.attention_layers):
        block = f"blocks.{number}."
        filtered = frequency_filter(x, w[block + "filter.beta"], settings.max_clicks, settings.frequencies)
        attended = causal_attention(x, x, w, block + "attention", settings.attention_heads)
        attended = attended @ w[block + "output.weight"].T + w[block + "output.bias"]
        mixed = settings.filter_share * norm(x + filtered, w, block + "filter_norm")
        mixed = mixed + (1 - settings.filter_share) * norm(x + attended, w, block + "attention_norm")
        fed = gelu(mixed @ w[block + "inner.weight"].T + w[block + "inner.bias"])
        fed = fed @ w[block + "outer.weight"].T + w[block + "outer.bias"]
        x = norm(mixed + fed, w, block + "feed_forward_norm")
    return x[-1]


FORMULAS = {"gru4rec": gru4rec, "stamp": stamp, "narm": narm, "sasrec": sasrec, "bsarec": bsarec}
