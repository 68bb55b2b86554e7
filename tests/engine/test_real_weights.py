"""The two models that come from a package registry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llmgr_core.engine import SemanticEngine
from llmgr_core.settings.engine import EngineSettings

pytestmark = pytest.mark.weights

TEXTS = [
    "Matte red lipstick by Maybelline",
    "Long-lasting lip color, crimson",
    "Cordless hair dryer with diffuser, 2000 W",
    "Toy Story",
]


def check(model: Path, hidden_size: int) -> np.ndarray:
    engine = SemanticEngine.load(EngineSettings(model=str(model), max_tokens=32))
    assert engine.hidden_size == hidden_size
    together = engine.embed_texts(TEXTS)
    alone = np.concatenate([engine.embed_texts([text]) for text in TEXTS])
    assert (np.linalg.norm(together - alone, axis=1) / np.linalg.norm(alone, axis=1)).max() < 1e-3
    centred = together - together.mean(axis=0)
    return centred / np.linalg.norm(centred, axis=1, keepdims=True)


def test_minilm_puts_two_lipsticks_side_by_side(minilm: Path) -> None:
    directions = check(minilm, 384)
    assert (directions[0] @ directions.T).argsort()[-2] == 1


def test_smollm2_runs_through_the_same_path(smollm2: Path) -> None:
    directions = check(smollm2, 576)
    assert np.isfinite(directions).all()
    assert (directions @ directions.T - np.eye(len(TEXTS))).max() < 0.9
