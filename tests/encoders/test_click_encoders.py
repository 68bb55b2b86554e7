"""GRU4Rec, STAMP, NARM, SASRec and BSARec against their papers' formulas, and what must not change a session's vector."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paper_formulas import FORMULAS

from llmgr_core.encoders import Backbone, EncoderSettings, build_encoder, click_gru, ragged_rows
from llmgr_core.graphs import SessionBatch
from llmgr_core.ranker.online import OnlineRanker
from llmgr_core.sessions import Examples, Sessions

D, NUM_ITEMS = 8, 12
SHAPES = [
    {"name": "gru4rec"},
    {"name": "stamp"},
    {"name": "narm"},
    {"name": "sasrec"},
    {"name": "sasrec", "attention_layers": 3, "attention_heads": 2},
    {"name": "sasrec", "attention_layers": 2, "positions": False},
    {"name": "bsarec", "frequencies": 3},
    {"name": "bsarec", "frequencies": 2, "attention_layers": 3, "attention_heads": 4, "filter_share": 0.4, "max_clicks": 7},
    {"name": "bsarec", "frequencies": 1, "attention_layers": 2, "positions": False},
]
NAMES = sorted(FORMULAS)
CUTTING = sorted(set(NAMES) - {"stamp"})
SESSIONS = [[1, 2, 1, 3], [], [4], [5, 6, 5, 5], [7, 8, 9, 1, 2, 3], [3, 3], []]


def encoder_of(shape: dict, **knobs):
    """In float64, with weights away from where they begin: zero biases and norms of one would hide mistakes."""
    torch.manual_seed(0)
    encoder = build_encoder(EncoderSettings(**{"dimension": D, "max_clicks": 6, **shape, **knobs})).double().eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return encoder


def batch_of(sessions: list[list[int]], max_clicks: int | None = None) -> SessionBatch:
    return SessionBatch.from_sessions(Sessions.from_lists(sessions), max_clicks)


def table() -> torch.Tensor:
    return torch.randn(NUM_ITEMS, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def by_formula(encoder, rows: torch.Tensor, sessions: list[list[int]]) -> torch.Tensor:
    own, weights = encoder.settings, dict(encoder.named_parameters())
    formula = FORMULAS[own.name]
    return torch.stack([formula(rows[one[-own.max_clicks :]], weights, own) if one else rows.new_zeros(D) for one in sessions])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@settings(max_examples=15, deadline=None)
@given(sessions=st.lists(st.lists(st.integers(0, NUM_ITEMS - 1), max_size=9), min_size=1, max_size=6))
def test_sessions_are_encoded_as_the_paper_says(shape, sessions):
    encoder = encoder_of(shape)
    batch = batch_of(sessions, encoder.settings.max_clicks)
    with torch.no_grad():
        found = encoder(table()[batch.node_items], batch)
        torch.testing.assert_close(found, by_formula(encoder, table(), sessions), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_are_those_of_the_formula_and_reach_everything(shape):
    encoder = encoder_of(shape)
    batch = batch_of(SESSIONS, encoder.settings.max_clicks)
    weighing = torch.randn(len(SESSIONS), D, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def gradients(encode) -> dict[str, torch.Tensor]:
        encoder.zero_grad()
        rows = table().requires_grad_()
        (encode(rows) * weighing).sum().backward()
        return {"rows": rows.grad, **{name: parameter.grad.clone() for name, parameter in encoder.named_parameters()}}

    expected = gradients(lambda rows: by_formula(encoder, rows, SESSIONS))
    for name, gradient in gradients(lambda rows: encoder(rows[batch.node_items], batch)).items():
        assert gradient.abs().max() > 1e-6, name
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@settings(max_examples=10, deadline=None)
@given(
    sessions=st.lists(st.lists(st.integers(0, NUM_ITEMS - 1), max_size=40), min_size=1, max_size=8),
    order=st.randoms(use_true_random=False),
)
def test_a_session_is_encoded_alike_alone_and_in_any_company(shape, sessions, order):
    encoder = encoder_of(shape, max_clicks=30)

    def encode(some: list[list[int]]) -> torch.Tensor:
        batch = batch_of(some, 30)
        with torch.no_grad():
            return encoder(table()[batch.node_items], batch)

    together = encode(sessions)
    places = list(range(len(sessions)))
    order.shuffle(places)
    torch.testing.assert_close(encode([sessions[place] for place in places]), together[places])
    for place, session in enumerate(sessions):
        torch.testing.assert_close(encode([session])[0], together[place])


@pytest.mark.parametrize("name", CUTTING)
def test_a_batch_that_was_not_cut_is_read_from_its_last_clicks(name):
    encoder = encoder_of({"name": name, "attention_layers": 2})
    sessions = [list(range(12)), [1], list(range(11, 2, -1))]
    whole, cut = batch_of(sessions), batch_of(sessions, 6)
    with torch.no_grad():
        torch.testing.assert_close(encoder(table()[whole.node_items], whole), encoder(table()[cut.node_items], cut))


@pytest.mark.parametrize("name", ["sasrec", "bsarec"])
def test_the_last_block_computes_just_the_rows_that_are_read(name):
    encoder = encoder_of({"name": name})
    batch = batch_of([session for session in SESSIONS if session])
    rows = table()[batch.clicks]
    sessions = ragged_rows.PaddedSessions(batch, 6)
    with torch.no_grad():
        every = encoder.blocks[0](rows, batch, sessions, last_only=False)
        last = encoder.blocks[0](rows, batch, sessions, last_only=True)
    torch.testing.assert_close(last, every[batch.click_offsets[1:] - 1])


def test_a_click_of_sasrec_sees_nothing_behind_it():
    block = encoder_of({"name": "sasrec", "attention_heads": 2}).blocks[0]
    batch = batch_of([[1, 2, 3, 4, 5], [6, 7, 8]])
    sessions = ragged_rows.PaddedSessions(batch, 6)
    rows = table()[batch.clicks].requires_grad_()
    # Clicks 0 1 2 3 4 of one session, 5 6 7 of the other. Not a plain sum: less its mean, a row sums to nothing.
    out = block(rows, batch, sessions, last_only=False).square()
    (seen,) = torch.autograd.grad(out[2].sum(), rows, retain_graph=True)
    assert (seen.abs().sum(1) > 0).tolist() == [True, True, True, False, False, False, False, False]
    (seen,) = torch.autograd.grad(out[6].sum(), rows)
    assert (seen.abs().sum(1) > 0).tolist() == [False, False, False, False, False, True, True, False]


@pytest.mark.parametrize("name", CUTTING)
@pytest.mark.parametrize("max_clicks", [4, 30])
def test_the_form_for_a_gpu_gives_the_same(name, max_clicks, monkeypatch):
    encoder = encoder_of({"name": name, "attention_layers": 2}, max_clicks=max_clicks)
    batch = batch_of(SESSIONS)

    def results() -> list[torch.Tensor]:
        rows = table().requires_grad_()
        vectors = encoder(rows[batch.node_items], batch)
        return [vectors.detach(), *torch.autograd.grad(vectors.sin().sum(), [rows, *encoder.parameters()])]

    expected = results()
    for module in (ragged_rows, click_gru):
        monkeypatch.setattr(module, "fixed_widths", lambda device: True)
    monkeypatch.setattr(click_gru.ClickGRU, "_packed", None)
    for found, wanted in zip(results(), expected, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", NAMES)
def test_batches_without_clicks_give_zeros(name):
    encoder = encoder_of({"name": name})
    batch = batch_of([[], []])
    assert encoder(table()[batch.node_items], batch).tolist() == [[0.0] * D] * 2


@pytest.mark.parametrize("name", NAMES)
def test_dropout_is_for_training(name):
    encoder = encoder_of({"name": name, "dropout": 0.5})
    batch = batch_of(SESSIONS)
    nodes = table()[batch.node_items]
    still = encoder(nodes, batch)
    assert torch.equal(encoder(nodes, batch), still)
    encoder.train()
    assert not torch.allclose(encoder(nodes, batch), still)
    without = encoder_of({"name": name, "dropout": 0.0}).train()
    torch.testing.assert_close(without(nodes, batch), still)


@pytest.mark.parametrize("name", NAMES)
def test_saved_loaded_and_frozen_backbones_give_the_same_bits(name, tmp_path):
    torch.manual_seed(0)
    model = Backbone(NUM_ITEMS, EncoderSettings(name=name, dimension=D, attention_layers=2)).eval()
    batch = batch_of(SESSIONS)
    with torch.no_grad():
        expected = model.scores(batch)
        model.save(tmp_path)
        assert torch.equal(Backbone.load(tmp_path).scores(batch), expected)
        model.encoder.freeze()
        assert torch.equal(model.scores(batch), expected)
    ranker = OnlineRanker(NUM_ITEMS, model.settings, head_hidden=4)
    ranker.encoder.load_state_dict(model.encoder.state_dict())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("logits", ["cosine", "dot"])
def test_training_learns_what_follows_what(name, logits):
    """Item v + 1 follows v, after a session of any length; 12 items, so guessing costs 2.5."""
    generator = np.random.default_rng(0)
    starts, lengths = generator.integers(0, NUM_ITEMS, 48), generator.integers(2, 9, 48)
    walks = [[int(start + step) % NUM_ITEMS for step in range(length)] for start, length in zip(starts, lengths, strict=True)]
    examples = Examples.every_prefix(Sessions.from_lists(walks))
    batch = SessionBatch.from_sessions(examples.prefixes(6))
    targets = torch.from_numpy(examples.targets.astype(np.int64))
    torch.manual_seed(0)
    model = Backbone(NUM_ITEMS, EncoderSettings(name=name, dimension=16, max_clicks=6, dropout=0.1, logits=logits))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
    for _ in range(50):
        optimizer.zero_grad()
        loss = model.loss(batch, targets)
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        assert model.eval().loss(batch, targets) < 0.5
