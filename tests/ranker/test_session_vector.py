"""The NumPy path of one session computes what the trained module computes for a batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmgr_core.errors import SettingsError
from llmgr_core.graphs import SessionBatch
from llmgr_core.ranker.online import OnlineRanker
from llmgr_core.ranker.session_vector import build_session_vector
from llmgr_core.sessions import Sessions
from llmgr_core.settings.encoder import EncoderSettings

SHAPES = {
    "srgnn": EncoderSettings(name="srgnn", dimension=16),
    "srgnn, binary edges, two layers": EncoderSettings(name="srgnn", dimension=16, edges="binary", layers=2),
    "srgnn, no layer": EncoderSettings(name="srgnn", dimension=16, layers=0),
    "gcsan": EncoderSettings(name="gcsan", dimension=16),
    "gcsan, two blocks, four heads": EncoderSettings(name="gcsan", dimension=16, attention_layers=2, attention_heads=4),
    "gcsan, no positions": EncoderSettings(name="gcsan", dimension=16, positions=False, attention_share=0.3),
    "gru4rec": EncoderSettings(name="gru4rec", dimension=16),
    "stamp": EncoderSettings(name="stamp", dimension=16),
    "narm": EncoderSettings(name="narm", dimension=16),
    "sasrec": EncoderSettings(name="sasrec", dimension=16),
    "sasrec, three blocks, two heads": EncoderSettings(name="sasrec", dimension=16, attention_layers=3, attention_heads=2),
    "sasrec, no positions": EncoderSettings(name="sasrec", dimension=16, positions=False),
    "bsarec": EncoderSettings(name="bsarec", dimension=16),
    "bsarec, three blocks, four heads": EncoderSettings(
        name="bsarec", dimension=16, attention_layers=3, attention_heads=4, frequencies=2, max_clicks=23
    ),
}


def _model(shape: EncoderSettings, head: int) -> OnlineRanker:
    torch.manual_seed(5)
    model = OnlineRanker(12, shape, head).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("head", [0, 24])
def test_equals_the_module(name: str, head: int) -> None:
    model = _model(SHAPES[name], head)
    session_vector = build_session_vector(model.settings, {key: value.numpy() for key, value in model.state_dict().items()})
    table = model.id_table.detach().numpy()

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.integers(0, 11), min_size=1, max_size=20))
    def check(clicks: list[int]) -> None:
        batch = SessionBatch.from_sessions(Sessions.from_lists([clicks]))
        with torch.no_grad():
            expected = model.encode(model.id_table, batch)[0].numpy()
        nodes, click_nodes = np.unique_inverse(np.array(clicks))
        found = session_vector(table[nodes], click_nodes)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)

    check()


def test_an_encoder_that_cannot_be_served_is_refused() -> None:
    with pytest.raises(SettingsError, match='"fpmc" cannot be served'):
        build_session_vector(EncoderSettings(name="fpmc"), {})
