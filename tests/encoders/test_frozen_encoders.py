"""A frozen encoder folds its weights once, gives the same numbers, and never uses a fold of weights that it no longer has."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from kernels import GatedGraphWeights
from kernels.gated_graph import FoldedGraphWeights
from llmgr_core.encoders import EncoderSettings, build_encoder, graph_layer
from llmgr_core.encoders.encoder import SessionEncoder
from llmgr_core.graphs import SessionBatch
from llmgr_core.sessions import Sessions

BATCH = SessionBatch.from_sessions(Sessions.from_lists([[1, 2, 1, 3], [], [4], [5, 6, 5, 5]]))
ROWS = torch.randn(len(BATCH.node_items), 16, generator=torch.Generator().manual_seed(3))


@pytest.fixture(params=["gcsan", "srgnn"])
def encoder(request: pytest.FixtureRequest) -> SessionEncoder:
    torch.manual_seed(0)
    return build_encoder(EncoderSettings(name=request.param, dimension=16, layers=2)).eval()


def vectors(encoder: SessionEncoder) -> torch.Tensor:
    with torch.no_grad():
        return encoder(ROWS, BATCH)


@pytest.fixture
def folds(monkeypatch: pytest.MonkeyPatch) -> list[GatedGraphWeights]:
    """What has been folded so far, in the encoder's module and in the kernels."""
    from kernels.gated_graph import torch_path

    seen: list[GatedGraphWeights] = []
    fold = graph_layer.folded

    def folded(weights: GatedGraphWeights | FoldedGraphWeights) -> FoldedGraphWeights:
        if isinstance(weights, GatedGraphWeights):
            seen.append(weights)
        return fold(weights)

    for module in (graph_layer, torch_path):
        monkeypatch.setattr(module, "folded", folded)
    return seen


def test_calls_of_a_frozen_encoder_fold_nothing_and_give_the_same_bits(encoder, folds) -> None:
    expected = vectors(encoder)
    assert len(folds) == 1
    encoder.freeze()
    assert len(folds) == 2
    for _ in range(3):
        assert torch.equal(vectors(encoder), expected)
    with torch.inference_mode():
        assert torch.equal(encoder(ROWS, BATCH), expected)
    assert len(folds) == 2


def written(encoder: SessionEncoder) -> None:
    with torch.no_grad():
        encoder.graph_layer.edge_in.mul_(2.0)


def loaded(encoder: SessionEncoder) -> None:
    encoder.load_state_dict({name: 2.0 * tensor for name, tensor in encoder.state_dict().items()})


def put_in_place(encoder: SessionEncoder) -> None:
    encoder.load_state_dict({name: 2.0 * tensor for name, tensor in encoder.state_dict().items()}, assign=True)


def trained(encoder: SessionEncoder) -> None:
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=0.1, fused=True)
    encoder.train()(ROWS, BATCH).square().sum().backward()
    optimizer.step()
    encoder.eval()


def trained_in_evaluation_mode(encoder: SessionEncoder) -> None:
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
    encoder(ROWS, BATCH).square().sum().backward()
    optimizer.step()


def written_past_torch_while_training(encoder: SessionEncoder) -> None:
    encoder.train()
    encoder.graph_layer.edge_in.data.mul_(2.0)
    encoder.eval()


@pytest.mark.parametrize(
    "change", [written, loaded, put_in_place, trained, trained_in_evaluation_mode, written_past_torch_while_training]
)
def test_other_weights_end_the_fold(encoder, change: Callable[[SessionEncoder], None]) -> None:
    before = vectors(encoder.freeze())
    change(encoder)
    found = vectors(encoder)
    assert not torch.equal(found, before)
    same = build_encoder(encoder.settings).eval()
    same.load_state_dict(encoder.state_dict())
    assert torch.equal(found, vectors(same))


def test_gradients_reach_the_weights_of_a_frozen_encoder(encoder) -> None:
    encoder.freeze()
    encoder(ROWS, BATCH).square().sum().backward()
    frozen = {name: parameter.grad.clone() for name, parameter in encoder.named_parameters() if parameter.grad is not None}
    encoder.zero_grad()
    encoder.train().eval()
    encoder(ROWS, BATCH).square().sum().backward()
    assert any(name.startswith("graph_layer") for name in frozen)
    for name, parameter in encoder.named_parameters():
        if parameter.grad is not None:
            assert torch.equal(frozen[name], parameter.grad), name


def test_a_frozen_encoder_stays_so_on_its_way_to_another_dtype(encoder, folds) -> None:
    encoder.freeze().double()
    count = len(folds)
    with torch.no_grad():
        found = encoder(ROWS.double(), BATCH)
        assert len(folds) == count
        assert torch.equal(found, encoder.train().eval()(ROWS.double(), BATCH))


def test_the_witness_takes_the_weights_as_they_are(encoder, monkeypatch) -> None:
    monkeypatch.setenv("LLMGR_KERNELS", "torch_scatter")
    assert isinstance(encoder.freeze().graph_layer(), GatedGraphWeights)


def test_a_fold_is_no_part_of_the_state(encoder) -> None:
    names = set(encoder.state_dict())
    assert set(encoder.freeze().state_dict()) == names
