"""Training runs on the functions of kernels/ and nothing else, and never makes the logits of a batch over the catalogue.

One step of each kind on a tiny model, every kernel in Triton's interpreter, all that torch was asked for written down.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import WORDS, write_tiny_causal
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kernels.dispatch import interpreting
from llmgr_core.encoders import Backbone
from llmgr_core.engine.adapter import add_adapter
from llmgr_core.engine.bridge import Bridge
from llmgr_core.engine.hybrid_model import HybridModel
from llmgr_core.engine.prompt_batches import PromptBatches
from llmgr_core.engine.semantic_engine import SemanticEngine
from llmgr_core.graphs import SessionBatch
from llmgr_core.progress import Reporter
from llmgr_core.sessions import Examples, Sessions
from llmgr_core.settings import Settings
from llmgr_core.settings.distil import DistilSettings
from llmgr_core.settings.encoder import EncoderSettings
from llmgr_core.settings.pretrain import PretrainSettings
from trainer.distil import Distillation, Tutoring
from trainer.distil.imitation import Imitation
from trainer.distil.student import Student, TextVectors
from trainer.distil.teacher_rankings import TeacherRankings
from trainer.pretrain.recipe import Pretraining

pytestmark = pytest.mark.skipif(not interpreting(), reason="the interpreter is off: a GPU is here")

# Primes, so that no other tensor has their product as its size.
ITEMS, BATCH, DIMENSION = 211, 13, 16
ENCODERS = {
    "srgnn": EncoderSettings(name="srgnn", dimension=DIMENSION, dropout=0.0),
    "gcsan": EncoderSettings(name="gcsan", dimension=DIMENSION, dropout=0.0, attention_heads=1, attention_layers=2),
}
LOSS = {"catalogue_cross_entropy_forward", "catalogue_cross_entropy_backward"}
GATED = {"gated_layers_forward", "gated_layers_backward"}
ROWS = {"item_rows_forward", "item_rows_backward"}
ENCODER_OPS = {
    "srgnn": GATED | ROWS | {"attention_readout_forward", "attention_readout_backward"},
    "gcsan": GATED | ROWS | {f"session_attention_{part}" for part in ("forward", "backward", "last_forward", "last_backward")},
}
# Operations that a softmax over the catalogue, a readout or a graph layer written by hand would be made of.
BY_HAND = {
    "_softmax",
    "_log_softmax",
    "nll_loss_forward",
    "logsumexp",
    "topk",
    "sort",
    "index_add",
    "index_add_",
    "scatter_add",
}


class WrittenDown(TorchDispatchMode):
    """Names of the operations, and the shapes of what they gave."""

    def __init__(self) -> None:
        super().__init__()
        self.ours: set[str] = set()
        self.others: set[str] = set()
        self.shapes: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        namespace, name = function.name().split("::")
        (self.ours if namespace == "llmgr" else self.others).add(name.split(".")[0])
        self.shapes.update(tuple(leaf.shape) for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor))
        return result


@pytest.fixture(autouse=True)
def triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMGR_KERNELS", "triton")


@pytest.fixture
def sessions() -> Sessions:
    rng = np.random.default_rng(0)
    return Sessions.from_lists([rng.integers(0, ITEMS, size=5).tolist() for _ in range(30)])


def step_of(training: Pretraining | Distillation) -> WrittenDown:
    """What one step of a training run asked torch for."""
    batch, targets, examples = next(iter(training.loader))
    assert len(targets) == BATCH
    with WrittenDown() as seen:
        training._step(batch, targets, examples)
    return seen


def assert_no_logits(seen: WrittenDown, batch: int, items: int) -> None:
    """Nothing has one number for each session and item, however it is laid out."""
    assert not {shape for shape in seen.shapes if np.prod(shape) >= batch * items and batch in shape and items in shape}
    assert not {shape for shape in seen.shapes if np.prod(shape) == batch * items}


@pytest.mark.parametrize("encoder", list(ENCODERS))
def test_a_step_of_pretraining(encoder: str, sessions: Sessions, tmp_path: Path) -> None:
    training = Pretraining(
        sessions,
        Examples.last_click(sessions),
        ITEMS,
        encoder=ENCODERS[encoder],
        settings=PretrainSettings(batch_size=BATCH),
        seed=0,
        directory=tmp_path,
        checkpoints=tmp_path,
        reporter=Reporter(as_json=True),
    )
    seen = step_of(training)
    assert seen.ours >= LOSS | ENCODER_OPS[encoder]
    assert not seen.others & BY_HAND
    assert_no_logits(seen, BATCH, ITEMS)


def test_a_step_of_distillation_with_text_and_teacher(sessions: Sessions, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    count = len(Examples.every_prefix(sessions))
    rankings = TeacherRankings(
        np.arange(count),
        np.stack([rng.permutation(ITEMS)[:7] for _ in range(count)]).astype(np.int32),
        np.sort(rng.normal(size=(count, 7)).astype(np.float16))[:, ::-1].copy(),
        np.ones(count, dtype=np.int32),
    )
    text = TextVectors(rng.normal(size=(ITEMS, 24)).astype(np.float16), np.ones(ITEMS, dtype=np.bool_), "f" * 64)
    training = Distillation(
        sessions,
        Examples.last_click(sessions),
        ITEMS,
        encoder=ENCODERS["srgnn"],
        settings=DistilSettings(batch_size=BATCH, head_hidden=8, text_rank=8, teacher_weight=1.0),
        text=text,
        tutoring=Tutoring(rankings),
        seed=0,
        directory=tmp_path,
        checkpoints=tmp_path,
        reporter=Reporter(as_json=True),
    )
    seen = step_of(training)
    assert seen.ours >= LOSS | ENCODER_OPS["srgnn"] | {"target_rank"}
    trained = int(training.model.has_id.sum())
    assert trained < ITEMS
    for items in (trained, ITEMS):
        assert_no_logits(seen, BATCH, items)
    # The softmax over the teacher's few items is no catalogue's; nothing else of the kind is there.
    assert seen.others & BY_HAND <= {"_softmax", "_log_softmax"}


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_causal(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("encoder", list(ENCODERS))
def test_a_step_of_stage_two(encoder: str, language_model: Path, sessions: Sessions) -> None:
    torch.manual_seed(0)
    settings = Settings.model_validate({"engine": {"model": str(language_model)}, "tune": {"lora_rank": 2, "text_rows": 8}})
    engine = SemanticEngine.load(settings.engine)
    add_adapter(engine.language_model, settings.tune.lora_rank, settings.tune.lora_alpha, 0.0, settings.tune.lora_targets)
    backbone = Backbone(ITEMS, ENCODERS[encoder])
    bridge = Bridge(engine.hidden_size, DIMENSION, settings.tune)
    model = HybridModel(
        engine,
        backbone,
        bridge,
        settings.tune,
        known=torch.ones(ITEMS, dtype=torch.bool),
        text_rows=torch.randn(ITEMS, settings.tune.text_rows),
    )
    texts = [f"small {WORDS[item % len(WORDS)]} soap" for item in range(ITEMS)]
    batches = PromptBatches(engine, texts, texts, settings.tune, backbone.settings.max_clicks)
    batch = batches.main(Examples.every_prefix(sessions).select(np.arange(BATCH)), with_last_texts=True)
    assert len(batch.last_owner) == BATCH
    with WrittenDown() as seen:
        model(batch).loss.backward()
    assert seen.ours >= LOSS | ENCODER_OPS[encoder] | {"gated_project_into"}
    assert isinstance(model.scale, torch.Tensor), "a number would make every step wait for the device"
    assert not model.scale.requires_grad
    assert_no_logits(seen, BATCH, ITEMS)


def test_logits_over_the_catalogue_would_be_noticed() -> None:
    backbone = Backbone(ITEMS, ENCODERS["srgnn"])
    batch = SessionBatch.from_sessions(Sessions.from_lists([[item, item + 1] for item in range(BATCH)]))
    with WrittenDown() as seen, torch.no_grad():
        backbone.scores(batch)
    with pytest.raises(AssertionError):
        assert_no_logits(seen, BATCH, ITEMS)


@pytest.mark.parametrize("path", ["torch", "triton"])
@pytest.mark.parametrize("logits", ["cosine", "dot"])
def test_losses_are_those_of_the_full_logits(monkeypatch: pytest.MonkeyPatch, path: str, logits: str) -> None:
    monkeypatch.setenv("LLMGR_KERNELS", path)
    rng = np.random.default_rng(5)
    encoder = EncoderSettings(name="srgnn", dimension=DIMENSION, logits=logits)
    has_id = rng.random(ITEMS) < 0.8
    student = Student(has_id, encoder, DistilSettings(), None)
    generator = torch.Generator().manual_seed(5)
    rows, sessions = torch.randn(ITEMS, DIMENSION, generator=generator), torch.randn(BATCH, DIMENSION, generator=generator)
    targets = torch.from_numpy(rng.choice(np.flatnonzero(has_id), BATCH))
    full = student.online.logits(sessions, rows).double()
    expected = functional.cross_entropy(full[:, has_id], student.place[targets])
    assert student.loss(rows, sessions, targets).item() == pytest.approx(expected.item(), rel=1e-5)

    items = np.stack([rng.permutation(ITEMS)[:7] for _ in range(BATCH)]).astype(np.int32)
    taught = np.sort(rng.normal(size=(BATCH, 7)).astype(np.float16))[:, ::-1].copy()
    teacher_ranks = rng.integers(1, ITEMS, size=BATCH).astype(np.int32)
    rankings = TeacherRankings(np.arange(BATCH), items, taught, teacher_ranks)
    imitation = Imitation(rankings, BATCH, weight=2.0, temperature=1.5, device=torch.device("cpu"))
    found, count = imitation.loss(student.online.logits, sessions, rows, targets, torch.arange(BATCH))
    passed = torch.from_numpy(teacher_ranks) < 1 + (full > full.gather(1, targets[:, None])).sum(dim=1)
    own = full.gather(1, torch.from_numpy(items).long())[passed] / 1.5
    theirs = (torch.from_numpy(taught).double()[passed] / 1.5).softmax(dim=1)
    divergence = functional.kl_div(own.log_softmax(dim=1), theirs, reduction="sum")
    assert 0 < int(count) == int(passed.sum()) < BATCH
    assert found.item() == pytest.approx(float(2.0 * 1.5**2 * divergence / BATCH), rel=1e-4)
