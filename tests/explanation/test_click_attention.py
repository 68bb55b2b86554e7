"""Attention weights are those of the papers' formulas, for one session, in float64."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from small_ranker import SmallRanker, small_ranker

from llmgr_core.settings.encoder import EncoderSettings

SESSIONS = [[7], [7, 8], [7, 9, 7, 7, 12], [30, 12, 9, 7, 40, 41]]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def weights_of(ranker: SmallRanker) -> dict[str, np.ndarray]:
    return {name.removeprefix("encoder."): value.astype(np.float64) for name, value in ranker.stored.tensors.items()}


def rows_of(ranker: SmallRanker, session: list[int]) -> dict[int, np.ndarray]:
    return {item: ranker.snapshot.rows.vectors(np.array([item]))[0].astype(np.float64) for item in session}


def read(ranker: SmallRanker, session: list[int]):
    nodes, click_nodes = np.unique_inverse(np.array(session))
    return ranker.attention.read(ranker.snapshot.rows.vectors(nodes), click_nodes)


def gated(ranker: SmallRanker, session: list[int]) -> dict[int, np.ndarray]:
    """Node vectors after the gated layers (Wu et al. 2019, eq. 1-5), edges counted by how often they were clicked."""
    w, x = weights_of(ranker), rows_of(ranker, session)
    for _ in range(ranker.stored.description.encoder.layers):
        new = {}
        for item in x:
            into = [a for a, b in pairwise(session) if b == item]
            out = [b for a, b in pairwise(session) if a == item]
            zero = np.zeros_like(x[item])
            came = np.mean([w["graph_layer.edge_in"] @ x[a] + w["graph_layer.edge_in_bias"] for a in into], 0) if into else zero
            left = np.mean([w["graph_layer.edge_out"] @ x[b] + w["graph_layer.edge_out_bias"] for b in out], 0) if out else zero
            gates = w["graph_layer.gate_input"] @ np.concatenate([came, left]) + w["graph_layer.gate_input_bias"]
            hidden = w["graph_layer.gate_hidden"] @ x[item] + w["graph_layer.gate_hidden_bias"]
            (r_in, z_in, n_in), (r_h, z_h, n_h) = np.split(gates, 3), np.split(hidden, 3)
            candidate = np.tanh(n_in + sigmoid(r_in + r_h) * n_h)
            update = sigmoid(z_in + z_h)
            new[item] = (1 - update) * candidate + update * x[item]
        x = new
    return x


@pytest.mark.parametrize("session", SESSIONS)
@pytest.mark.parametrize("layers", [0, 1, 2])
def test_srgnn_shows_the_alpha_of_its_readout(session: list[int], layers: int) -> None:
    ranker = small_ranker(EncoderSettings(name="srgnn", dimension=16, layers=layers, max_clicks=6))
    w, x = weights_of(ranker), gated(ranker, session)
    alphas = []
    for item in session:
        inner = w["readout.last"] @ x[session[-1]] + w["readout.node"] @ x[item] + w["readout.bias"]
        alphas.append(w["readout.score"] @ sigmoid(inner))
    found = read(ranker, session)
    np.testing.assert_allclose(found.weights, alphas, atol=1e-5)
    assert np.abs(found.shares).sum() == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_array_equal(np.sign(found.shares), np.sign(found.weights))
    # With these weights the readout is the encoder's own.
    attended = sum(alpha * x[item] for alpha, item in zip(alphas, session, strict=True))
    z = w["readout.output"] @ np.concatenate([attended, x[session[-1]]]) + w["readout.output_bias"]
    z = z + w["head.outer.weight"] @ np.maximum(w["head.inner.weight"] @ z + w["head.inner.bias"], 0) + w["head.outer.bias"]
    nodes, click_nodes = np.unique_inverse(np.array(session))
    own = ranker.runtime.parts.session_vector(ranker.snapshot.rows.vectors(nodes), click_nodes)
    np.testing.assert_allclose(own, z, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("session", SESSIONS)
@pytest.mark.parametrize(("heads", "positions"), [(1, True), (4, True), (2, False)])
def test_gcsan_shows_the_attention_of_the_last_click(session: list[int], heads: int, positions: bool) -> None:
    ranker = small_ranker(EncoderSettings(name="gcsan", dimension=16, attention_heads=heads, positions=positions, max_clicks=6))
    w, x = weights_of(ranker), gated(ranker, session)
    rows = [x[item] + (w["positions"][len(session) - 1 - n] if positions else 0) for n, item in enumerate(session)]
    both = [w["blocks.0.query_key_value"] @ row + w["blocks.0.query_key_value_bias"] for row in rows]
    width = 16 // heads
    expected = np.zeros(len(session))
    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        query = both[-1][:16][own]
        expected += softmax(np.array([query @ row[16:32][own] for row in both]) / math.sqrt(width)) / heads
    found = read(ranker, session)
    np.testing.assert_allclose(found.weights, expected, atol=1e-5)
    assert found.weights.sum() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("session", SESSIONS)
def test_sasrec_shows_the_attention_of_the_last_click(session: list[int]) -> None:
    ranker = small_ranker(EncoderSettings(name="sasrec", dimension=16, attention_heads=2, attention_layers=1, max_clicks=6))
    w, x = weights_of(ranker), rows_of(ranker, session)
    rows = []
    for place, item in enumerate(session):
        row = 4.0 * (x[item] + w["positions.vectors"][len(session) - 1 - place])
        normed = (row - row.mean()) / math.sqrt(row.var() + 1e-5)
        rows.append(normed * w["blocks.0.attention_norm.weight"] + w["blocks.0.attention_norm.bias"])
    expected = np.zeros(len(session))
    for head in (slice(0, 8), slice(8, 16)):
        query = (w["blocks.0.attention.query.weight"] @ rows[-1])[head]
        keys = [(w["blocks.0.attention.key.weight"] @ row)[head] for row in rows]
        expected += softmax(np.array([query @ key for key in keys]) / math.sqrt(8)) / 2
    np.testing.assert_allclose(read(ranker, session).weights, expected, atol=1e-5)


@pytest.mark.parametrize("session", SESSIONS)
def test_stamp_shows_its_attention_around_the_last_click(session: list[int]) -> None:
    ranker = small_ranker(EncoderSettings(name="stamp", dimension=16, max_clicks=6))
    w, x = weights_of(ranker), rows_of(ranker, session)
    clicks = [x[item] for item in session]
    context = w["of_last.weight"] @ clicks[-1] + w["of_mean.weight"] @ np.mean(clicks, 0) + w["of_mean.bias"]
    expected = [w["priority.weight"][0] @ sigmoid(w["of_click.weight"] @ click + context) for click in clicks]
    np.testing.assert_allclose(read(ranker, session).weights, expected, atol=1e-5)


@pytest.mark.parametrize("session", SESSIONS)
def test_narm_shows_its_attention_over_the_states(session: list[int]) -> None:
    ranker = small_ranker(EncoderSettings(name="narm", dimension=16, max_clicks=6))
    w, x = weights_of(ranker), rows_of(ranker, session)
    h, states = np.zeros(16), []
    for item in session:
        from_click = w["recurrence.gru.weight_ih_l0"] @ x[item] + w["recurrence.gru.bias_ih_l0"]
        from_state = w["recurrence.gru.weight_hh_l0"] @ h + w["recurrence.gru.bias_hh_l0"]
        (r_x, z_x, n_x), (r_h, z_h, n_h) = np.split(from_click, 3), np.split(from_state, 3)
        update = sigmoid(z_x + z_h)
        h = update * h + (1 - update) * np.tanh(n_x + sigmoid(r_x + r_h) * n_h)
        states.append(h)
    of_last = w["of_last.weight"] @ states[-1]
    expected = [w["attention.weight"][0] @ sigmoid(of_last + w["of_click.weight"] @ state) for state in states]
    np.testing.assert_allclose(read(ranker, session).weights, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["narm", "bsarec"])
def test_other_encoders_with_attention_give_a_weight_to_each_click(name: str) -> None:
    ranker = small_ranker(EncoderSettings(name=name, dimension=16, max_clicks=6))
    for session in SESSIONS:
        found = read(ranker, session)
        assert found.weights.shape == (len(session),)
        assert np.abs(found.shares).sum() == pytest.approx(1.0, abs=1e-5)


def test_an_encoder_without_attention_says_so() -> None:
    found = read(small_ranker(EncoderSettings(name="gru4rec", dimension=16, max_clicks=6)), [7, 8])
    assert found.weights is None
    assert found.shares is None
    assert "gru4rec has no attention" in found.meaning


def test_attention_moves_with_the_clicks_where_order_means_nothing() -> None:
    """Attention over a set: no positions, no graph layer, the last click stays the last."""
    ranker = small_ranker(EncoderSettings(name="gcsan", dimension=16, layers=0, positions=False, max_clicks=6))
    session, order = [30, 12, 9, 7], [2, 0, 1, 3]
    weights = read(ranker, session).weights
    np.testing.assert_allclose(read(ranker, [session[place] for place in order]).weights, weights[order], atol=1e-6)
