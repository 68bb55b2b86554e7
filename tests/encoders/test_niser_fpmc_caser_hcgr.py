"""NISER, FPMC, Caser and HCGR: held against their formulas, and what may not change a session's vector."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from session_formulas import REFERENCES, d_l, exp_o, hcgr, weights_of

from llmgr_core.encoders import Backbone, EncoderSettings, build_encoder
from llmgr_core.encoders.backbone import SETTINGS_NAME
from llmgr_core.errors import SettingsError
from llmgr_core.graphs import SessionBatch
from llmgr_core.ranker.online import OnlineRanker
from llmgr_core.sessions import Sessions

NUM_ITEMS, D = 40, 16
NAMES = ("niser", "fpmc", "caser", "hcgr")
SESSIONS = [[], [3], [3, 3, 3], [1, 2, 1, 2, 5], [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 11, 12], [], [1, 2, 3, 2, 4, 4]]


def backbone(name: str, **knobs) -> Backbone:
    torch.manual_seed(0)
    model = Backbone(NUM_ITEMS, EncoderSettings(name=name, dimension=D, **knobs)).eval()
    with torch.no_grad():  # away from initial values that hide a part of the formula
        for label, parameter in model.encoder.named_parameters():
            if label in ("positions",) or label.endswith("log_sharpness"):
                parameter.add_(0.5 * torch.randn_like(parameter))
    return model


def batch_of(model: Backbone, sessions: list[list[int]]) -> SessionBatch:
    return SessionBatch.from_sessions(Sessions.from_lists(sessions), max_clicks=model.settings.max_clicks)


def encode(model: Backbone, sessions: list[list[int]]) -> torch.Tensor:
    with torch.inference_mode():
        return model.encode(batch_of(model, sessions))


@pytest.mark.parametrize(
    ("name", "knobs"),
    [
        ("niser", {}),
        ("niser", {"positions": False}),
        ("fpmc", {}),
        ("caser", {"horizontal_filters": 3}),
        ("caser", {"window": 1}),
        ("caser", {"window": 30, "vertical_filters": 2, "horizontal_filters": 2}),
        ("hcgr", {}),
        ("hcgr", {"layers": 0}),
        ("hcgr", {"layers": 3}),
    ],
)
def test_each_session_is_encoded_by_the_formulas(name, knobs):
    model = backbone(name, **knobs)
    vectors = encode(model, SESSIONS)
    for vector, session in zip(vectors, SESSIONS, strict=True):
        expected = REFERENCES[name](model, session) if session else np.zeros(D)
        torch.testing.assert_close(vector.double(), torch.from_numpy(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_long_sessions_count_by_their_last_clicks_and_empty_ones_are_zero(name):
    model = backbone(name, max_clicks=3)
    torch.testing.assert_close(encode(model, [[9, 8, 1, 2, 3]]), encode(model, [[1, 2, 3]]))
    long = np.random.default_rng(0).integers(0, NUM_ITEMS, size=300).tolist()
    assert torch.isfinite(encode(backbone(name, max_clicks=300), [long])).all()
    empty = encode(model, [[], []])
    assert empty.tolist() == torch.zeros(2, D).tolist()


@pytest.mark.parametrize("name", ["niser", "hcgr"])
def test_binary_edges_forget_how_often(name):
    knobs = {"positions": False} if name == "niser" else {}
    weighted = backbone(name, **knobs)
    binary = Backbone(NUM_ITEMS, weighted.settings.model_copy(update={"edges": "binary"})).eval()
    binary.load_state_dict(weighted.state_dict())
    assert (encode(weighted, [[1, 2, 1, 3, 1, 2]]) - encode(binary, [[1, 2, 1, 3, 1, 2]])).abs().max() > 1e-6
    torch.testing.assert_close(encode(weighted, [[5, 6, 7]]), encode(binary, [[5, 6, 7]]), rtol=0, atol=0)


def test_niser_vectors_have_length_one_and_forget_the_length_of_items():
    model = backbone("niser")
    before = encode(model, SESSIONS)
    torch.testing.assert_close(before.norm(dim=1), torch.tensor([0.0, 1, 1, 1, 1, 0, 1]))
    with torch.no_grad():
        model.item_table.mul_(torch.rand(NUM_ITEMS, 1) * 50 + 0.1)
    torch.testing.assert_close(encode(model, SESSIONS), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("logits", ["cosine", "dot", "lorentz"])
def test_gradients_reach_every_weight_and_stay_finite(name, logits):
    model = backbone(name, logits=logits)
    batch = batch_of(model, SESSIONS)
    model.loss(batch, torch.arange(20, 20 + len(SESSIONS))).backward()
    for label, parameter in model.named_parameters():
        assert parameter.grad is not None, label
        assert torch.isfinite(parameter.grad).all(), label
        assert parameter.grad.any(), label


@pytest.mark.parametrize("length", [0.0, 1e-30, 1e6])
@pytest.mark.parametrize("name", NAMES)
def test_item_vectors_of_no_length_or_far_away_do_no_harm(name, length):
    model = backbone(name)
    with torch.no_grad():
        model.item_table.mul_(length)
    loss = model.loss(batch_of(model, SESSIONS), torch.arange(20, 20 + len(SESSIONS)))
    loss.backward()
    assert torch.isfinite(loss)
    for label, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), label


def test_the_contrastive_loss_is_the_hinge_on_geodesic_distances():
    model = backbone("hcgr", margin=0.7, contrast=0.3)
    targets = torch.tensor([7, 8, 7, 9])
    sessions = [[1, 2], [], [3], [4, 5, 4]]
    batch = batch_of(model, sessions)
    table = weights_of(model)["item_table"]
    points = [hcgr(model, session) if session else np.zeros(D) for session in sessions]
    hinges = [
        max(0.0, 0.7 + d_l(exp_o(z), exp_o(table[own])) - d_l(exp_o(z), exp_o(table[other])))
        for z, own in zip(points, targets.tolist(), strict=True)
        for other in targets.tolist()
        if other != own
    ]
    found = model.loss(batch, targets) - model.logits.loss(model.encode(batch), model.item_table, targets)
    torch.testing.assert_close(found.item(), 0.3 * float(np.mean(hinges)), rtol=1e-4, atol=1e-5)
    alone = model.loss(batch_of(model, [[1]]), torch.tensor([2]))
    torch.testing.assert_close(
        alone, torch.nn.functional.cross_entropy(model.scores(batch_of(model, [[1]])), torch.tensor([2]))
    )
    without = backbone("hcgr", contrast=0.0)
    torch.testing.assert_close(without.loss(batch, targets), torch.nn.functional.cross_entropy(without.scores(batch), targets))


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded_backbones_score_alike(tmp_path, name):
    model = backbone(name, learn_scale=True)
    model.save(tmp_path)
    again = Backbone.load(tmp_path)
    assert again.settings == model.settings
    batch = batch_of(model, SESSIONS)
    assert torch.equal(again.scores(batch), model.scores(batch))
    own = {"caser": "window", "hcgr": "margin"}
    text = (tmp_path / SETTINGS_NAME).read_text()
    assert [key for key in own.values() if key in text] == ([own[name]] if name in own else [])


def test_what_ranks_new_items_refuses_fpmc_and_hyperbolic_logits():
    with pytest.raises(SettingsError, match="fpmc"):
        build_encoder(EncoderSettings(name="fpmc"))
    with pytest.raises(SettingsError, match="fpmc"):
        OnlineRanker(NUM_ITEMS, EncoderSettings(name="fpmc"), 0)
    with pytest.raises(SettingsError, match='logits="cosine"'):
        OnlineRanker(NUM_ITEMS, EncoderSettings(name="hcgr"), 0)
    assert OnlineRanker(NUM_ITEMS, EncoderSettings(name="hcgr", logits="cosine"), 0).logits.cosine


def test_tuning_refuses_hyperbolic_logits_before_it_looks_at_a_language_model():
    from llmgr_core.engine.hybrid_model import HybridModel

    with pytest.raises(SettingsError, match='logits="cosine"'):
        HybridModel(None, backbone("hcgr"), None, None, known=torch.ones(NUM_ITEMS, dtype=torch.bool))


def test_hcgr_scores_in_hyperbolic_space_unless_told_otherwise():
    assert EncoderSettings(name="hcgr").logits == "lorentz"
    assert EncoderSettings(name="hcgr", logits="dot").logits == "dot"
    assert EncoderSettings(name="niser").logits == "cosine"
