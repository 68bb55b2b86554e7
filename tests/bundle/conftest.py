"""A finished bundle of a small ranker with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from llmgr_core.artefacts import draft_artefact
from llmgr_core.bundle import EngineReference, write_bundle
from llmgr_core.ranker import FoldedTransform, ScoringSettings
from llmgr_core.ranker.online import OnlineRanker
from llmgr_core.ranker.stored import RankerDescription, StoredRanker
from llmgr_core.sessions import Sessions
from llmgr_core.settings.encoder import EncoderSettings
from llmgr_core.settings.transitions import TransitionSettings
from llmgr_core.transitions import TransitionGraph

ITEM_IDS = ["plain", "with space", "new\nline", "Ünïcödé 🛒", "\ud800 lone surrogate", "", "quote\"'", "a/b\\c"]
FINGERPRINT = "f" * 64


@pytest.fixture
def item_ids() -> list[str]:
    return list(ITEM_IDS)


@pytest.fixture
def stored() -> StoredRanker:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    count = len(ITEM_IDS)
    encoder = EncoderSettings(name="gcsan", dimension=8, max_clicks=4)
    train = Sessions.from_lists([rng.integers(0, count, size=4).tolist() for _ in range(10)])
    return StoredRanker(
        description=RankerDescription(
            variant="fused",
            num_items=count,
            encoder=encoder,
            head_hidden=4,
            text_dimension=6,
            fingerprint=FINGERPRINT,
            scoring=ScoringSettings(transition_weight=1.0, temperature=0.9, include_seen=True),
        ),
        tensors={name: tensor.numpy() for name, tensor in OnlineRanker(count, encoder, 4).state_dict().items()},
        has_id=np.arange(count) != 3,
        popularity=train.click_counts(count),
        transform=FoldedTransform(rng.normal(size=(6, 8)).astype(np.float32), np.zeros(8, dtype=np.float32), 1.3),
        transitions=TransitionGraph.build(train, count, TransitionSettings()).pruned(),
    )


@pytest.fixture
def engine() -> EngineReference:
    return EngineReference(
        settings={"model": "minilm"},
        base_hash="b" * 64,
        adapter_hash="a" * 64,
        fingerprint=FINGERPRINT,
        prompt_version="1",
        hidden_size=6,
    )


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    directory = tmp_path / "tuned" / "adapter"
    directory.mkdir(parents=True)
    (directory / "adapter_config.json").write_text("{}")
    (directory / "adapter_model.safetensors").write_bytes(b"weights")
    return directory


@pytest.fixture
def bundle_path(tmp_path: Path, stored: StoredRanker, item_ids: list[str], engine: EngineReference, adapter: Path) -> Path:
    path = tmp_path / "bundle"
    bridge = tmp_path / "tuned" / "bridge.safetensors"
    bridge.write_bytes(b"bridge")
    with draft_artefact(path, "bundle", [], {"variant": "fused"}) as draft:
        write_bundle(draft.path, stored, item_ids, cleaner_state={"phrases": []}, engine=engine, adapter=adapter, bridge=bridge)
    return path
