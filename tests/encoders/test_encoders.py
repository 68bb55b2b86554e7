"""Encoders: what may and what may not change a session's vector."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmgr_core.encoders import Backbone, EncoderSettings
from llmgr_core.errors import ArtefactError
from llmgr_core.graphs import SessionBatch
from llmgr_core.sessions import Sessions

NUM_ITEMS = 40
NAMES = ("gcsan", "srgnn")


def backbone(name: str = "gcsan", **knobs) -> Backbone:
    torch.manual_seed(0)
    return Backbone(NUM_ITEMS, EncoderSettings(name=name, dimension=16, **knobs)).eval()


def encode(model: Backbone, sessions: list[list[int]]) -> torch.Tensor:
    with torch.inference_mode():
        batch = SessionBatch.from_sessions(Sessions.from_lists(sessions), max_clicks=model.settings.max_clicks)
        return model.encode(batch)


@pytest.mark.parametrize("name", [*NAMES, "niser", "fpmc", "caser", "hcgr"])
@settings(max_examples=25, deadline=None)
@given(
    sessions=st.lists(st.lists(st.integers(0, NUM_ITEMS - 1), max_size=30), min_size=1, max_size=8),
    order=st.randoms(use_true_random=False),
)
def test_a_session_is_encoded_alike_alone_and_in_any_company(name, sessions, order):
    model = backbone(name, attention_layers=2, attention_heads=2)
    together = encode(model, sessions)
    places = list(range(len(sessions)))
    order.shuffle(places)
    shuffled = encode(model, [sessions[place] for place in places])
    torch.testing.assert_close(shuffled, together[places], rtol=1e-4, atol=1e-5)
    for place, session in enumerate(sessions):
        torch.testing.assert_close(encode(model, [session])[0], together[place], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layers", [0, 1, 3])
def test_odd_sessions_give_finite_vectors(name, layers):
    model = backbone(name, layers=layers, max_clicks=300)
    generator = np.random.default_rng(0)
    vectors = encode(model, [[], [3], [3, 3, 3], [1, 2, 1, 2], generator.integers(0, NUM_ITEMS, size=200).tolist(), []])
    assert vectors.shape == (6, 16)
    assert torch.isfinite(vectors).all()
    assert vectors[[0, 5]].abs().sum() == 0, "a session without clicks is the zero vector"
    assert (vectors[1:5].abs().sum(1) > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_empty_sessions_can_be_scored(name):
    model = backbone(name)
    scores = model.scores(SessionBatch.from_sessions(Sessions.from_lists([[], []])))
    assert scores.tolist() == torch.zeros(2, NUM_ITEMS).tolist()


@pytest.mark.parametrize("name", NAMES)
def test_repeats_matter_only_with_multiplicity(name):
    once, often = [[5, 6, 7]], [[5, 6, 5, 6, 5, 6, 7]]
    weighted = backbone(name, positions=False)
    assert (encode(weighted, once) - encode(weighted, often)).abs().max() > 1e-4
    two_ways = [[1, 2, 1, 3, 1, 2]]
    binary = Backbone(NUM_ITEMS, weighted.settings.model_copy(update={"edges": "binary"})).eval()
    binary.load_state_dict(weighted.state_dict())
    assert (encode(weighted, two_ways) - encode(binary, two_ways)).abs().max() > 1e-6
    assert (encode(weighted, once) - encode(binary, once)).abs().max() == 0


def test_positions_tell_the_order_of_a_chain_beyond_its_edges():
    knobs = {"layers": 0, "attention_layers": 1}
    blind, seeing = backbone(positions=False, **knobs), backbone(positions=True, **knobs)
    for model in (blind, seeing):
        with torch.no_grad():  # fresh weights attend to all clicks almost alike
            model.encoder.blocks[0].query_key_value.mul_(50)
            model.encoder.blocks[0].output.mul_(50)
    one, other = [[1, 2, 3]], [[2, 1, 3]]
    torch.testing.assert_close(encode(blind, one), encode(blind, other))
    assert (encode(seeing, one) - encode(seeing, other)).abs().max() > 1e-5


def test_clicks_beyond_the_last_n_are_left_out():
    model = backbone(max_clicks=3)
    torch.testing.assert_close(encode(model, [[9, 8, 1, 2, 3]]), encode(model, [[1, 2, 3]]))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("logits", ["cosine", "dot"])
@pytest.mark.parametrize("learn_scale", [False, True])
def test_the_loss_is_the_cross_entropy_of_the_scores_and_reaches_every_weight(name, logits, learn_scale):
    model = backbone(name, logits=logits, learn_scale=learn_scale, scale=7.0)
    batch = SessionBatch.from_sessions(Sessions.from_lists([[1, 2, 3], [4], [5, 6, 5]]))
    targets = torch.tensor([7, 8, 9])
    loss = model.loss(batch, targets)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(model.scores(batch), targets))
    loss.backward()
    for label, parameter in model.named_parameters():
        assert parameter.grad is not None, label
        assert torch.isfinite(parameter.grad).all(), label
    assert ("logits.log_scale" in dict(model.named_parameters())) == (learn_scale and logits == "cosine")


def test_cosine_scores_are_bounded_by_their_scale():
    model = backbone(scale=5.0)
    with torch.no_grad():
        model.item_table.mul_(100)
    scores = model.scores(SessionBatch.from_sessions(Sessions.from_lists([[1, 2]])))
    assert scores.abs().max() <= 5.0 + 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded_backbones_score_alike(tmp_path, name):
    model = backbone(name, learn_scale=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    model.save(tmp_path)
    again = Backbone.load(tmp_path)
    assert again.settings == model.settings
    assert not again.training
    torch.testing.assert_close(encode(again, [[1, 2, 1]]), encode(model, [[1, 2, 1]]), rtol=0, atol=0)


def test_a_damaged_backbone_is_named(tmp_path):
    with pytest.raises(ArtefactError, match="pretrain"):
        Backbone.load(tmp_path)
    backbone().save(tmp_path)
    weights = tmp_path / "backbone.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(ArtefactError, match="no usable backbone"):
        Backbone.load(tmp_path)


def test_heads_that_do_not_divide_the_dimension_are_refused():
    with pytest.raises(ValueError, match="attention_heads=3 does not divide dimension=64"):
        EncoderSettings(attention_heads=3)
