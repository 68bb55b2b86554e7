"""Text tokens and projected ID vectors in one sequence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import kernels
from kernels import GatedGraphWeights, build_session_graph, gated_graph_layers
from llmgr_core.engine import SemanticEngine
from llmgr_core.engine.bridge import Bridge, Readout
from llmgr_core.engine.bridge_start import start_projection, whitening
from llmgr_core.engine.hybrid import HybridInput, vector_place
from llmgr_core.engine.prompts import PromptWords, auxiliary_row, main_row
from llmgr_core.errors import InputError
from llmgr_core.settings.engine import EngineSettings
from llmgr_core.settings.tune import TuneSettings


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> SemanticEngine:
    return SemanticEngine.load(EngineSettings(model=str(tiny_model)))


def test_an_id_vector_stands_projected_at_its_place_between_text_tokens(engine: SemanticEngine) -> None:
    model = engine.language_model
    ids, projection = torch.randn(3, 8), torch.randn(32, 8)
    batch = HybridInput.from_rows([[5, vector_place(2), 6], [vector_place(0)]])
    vectors = batch.vectors(model, projection, ids)
    tokens = model.embed_tokens(torch.tensor([5, 6]))
    assert torch.allclose(vectors[0, 0], tokens[0])
    assert torch.allclose(vectors[0, 2], tokens[1])
    assert torch.allclose(vectors[0, 1], projection @ ids[2], atol=1e-5)
    assert torch.allclose(vectors[1, 0], projection @ ids[0], atol=1e-5)


def test_nodes_of_a_graph_are_layered_projected_and_placed_wherever_they_are_named(engine: SemanticEngine) -> None:
    """In one operation, with the gradients of the plain way; a node may be named again, before or after its first place."""
    model = engine.language_model
    clicks = build_session_graph(np.array([4, 7, 4, 9, 5]), np.array([0, 4, 5]))
    nodes = torch.randn(4, 8, requires_grad=True)
    layer = GatedGraphWeights(*[weight.requires_grad_() for weight in GatedGraphWeights.initial(8)])
    projection = torch.randn(32, 8, requires_grad=True)
    sessions = torch.randn(2, 8, requires_grad=True)
    first = [vector_place(1), 5, vector_place(0), vector_place(2), vector_place(1), vector_place(4)]
    batch = HybridInput.from_rows([first, [vector_place(5), 6, vector_place(3), vector_place(3)]], nodes=4)
    found = batch.vectors_of_graph(model, projection, nodes, clicks.graph, layer, 2, "binary", sessions)
    layered = gated_graph_layers(nodes, clicks.graph, layer, 2, "binary")
    expected = batch.vectors(model, projection, torch.cat([layered, sessions]))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    weigh = torch.randn(found.shape)
    inputs = [nodes, projection, sessions, *layer]
    plain = torch.autograd.grad((expected * weigh).sum(), inputs)
    for one, other in zip(torch.autograd.grad((found * weigh).sum(), inputs), plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_without_gradients_nodes_are_written_straight_into_the_token_vectors(
    engine: SemanticEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    clicks = build_session_graph(np.array([4, 7, 4]), np.array([0, 3]))
    nodes, projection, sessions = torch.randn(2, 8), torch.randn(32, 8), torch.randn(1, 8)
    layer = GatedGraphWeights.initial(8)
    batch = HybridInput.from_rows([[vector_place(1), 5, vector_place(0), vector_place(1), vector_place(2)]], nodes=2)
    place, in_place = kernels.gated_graph_project_into, []

    def placed(*arguments, **options):
        in_place.append(options["in_place"])
        return place(*arguments, **options)

    monkeypatch.setattr(kernels, "gated_graph_project_into", placed)
    arguments = (engine.language_model, projection, nodes, clicks.graph, layer, 1, "binary", sessions)
    expected = batch.vectors_of_graph(*arguments)
    with torch.inference_mode():
        for _ in range(2):
            assert torch.equal(batch.vectors_of_graph(*arguments), expected)
    assert in_place == [False, True, True]


def test_padding_does_not_change_what_a_hybrid_prompt_reads_as(engine: SemanticEngine) -> None:
    model, words = engine.language_model, PromptWords(engine.language_model)
    bridge = Bridge(32, 8, TuneSettings(text_rows=0)).eval()
    ids = torch.randn(6, 8)
    short = auxiliary_row(words, model.tokens(["red soap"], 9)[0], [0, 1])
    long = auxiliary_row(words, model.tokens(["large soft towel red green blue oil"], 9)[0], [2, 3, 4, 5])

    def read(rows: list[list[int]]) -> torch.Tensor:
        batch = HybridInput.from_rows(rows)
        with torch.no_grad():
            hidden = model(batch.vectors(model, bridge.projection, ids), batch.mask)
            return bridge.session_part(bridge.read(hidden, batch.mask))

    together, swapped = read([short, long]), read([long, short])
    alone = torch.cat([read([short]), read([long])])
    assert torch.allclose(together, alone, rtol=1e-3, atol=1e-4)
    assert torch.allclose(swapped.flip(0), alone, rtol=1e-3, atol=1e-4)


def test_both_prompt_families_say_what_they_are_about(engine: SemanticEngine) -> None:
    model, words = engine.language_model, PromptWords(engine.language_model)
    description = model.tokens(["red soap"], 9)[0]
    auxiliary = auxiliary_row(words, description, [4, 2, 9])
    assert [entry for entry in auxiliary if entry < 0] == [-5, -3, -10]
    start = auxiliary.index(description[0])
    assert auxiliary[start : start + 2] == description
    main = main_row(words, nodes=[0, 1], edges=[(0, 1)], titles=[(1, description), (0, [])], session=7)
    # nodes, the edge, the last clicks (latest first), the session vector
    assert [-1 - entry for entry in main if entry < 0] == [0, 1, 0, 1, 1, 0, 7]


def test_folding_scores_an_item_as_the_paper_does() -> None:
    bridge = Bridge(32, 8, TuneSettings())
    torch.nn.init.normal_(bridge.head.outer.weight)
    read, items = torch.randn(5, 32), torch.randn(11, 8)
    with torch.no_grad():
        projected = items @ bridge.projection.T
        assert torch.allclose(bridge.session_part(read) @ items.T, bridge.head(read) @ projected.T, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", ["attention", "mean", "max"])
@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5), seed=st.integers(0, 1000))
def test_a_readout_sees_real_positions_only(kind: str, lengths: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    readout = Readout(6, kind)
    if kind == "attention":
        torch.nn.init.normal_(readout.query)
    hidden = torch.randn(len(lengths), max(lengths), 6)
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    poisoned = hidden.masked_fill(~mask[:, :, None], float("nan"))
    found = readout(poisoned, mask)
    for row, length in enumerate(lengths):
        expected = readout(hidden[row : row + 1, :length], torch.ones(1, length, dtype=torch.bool))
        assert torch.allclose(found[row], expected[0], atol=1e-5)


def test_the_attention_readout_starts_as_the_mean() -> None:
    hidden, mask = torch.randn(2, 4, 6), torch.tensor([[True] * 4, [True, True, False, False]])
    assert torch.allclose(Readout(6, "attention")(hidden, mask), Readout(6, "mean")(hidden, mask), atol=1e-6)


def test_the_projection_starts_where_texts_already_find_their_items() -> None:
    torch.manual_seed(0)
    ids = torch.randn(300, 8)
    texts = torch.randn(300, 32) * 0.3 + ids @ torch.randn(8, 32) + 5.0
    bridge = Bridge(32, 8, TuneSettings())
    start_projection(bridge, texts[:250], ids[:250], token_norm=1.5)
    part = torch.nn.functional.normalize(bridge.item_part(texts[250:]), dim=1)
    found = (part @ torch.nn.functional.normalize(ids, dim=1).T).argmax(dim=1)
    assert (found == torch.arange(250, 300)).float().mean() > 0.8
    assert float((ids @ bridge.projection.detach().T).norm(dim=1).mean()) == pytest.approx(1.5, rel=0.05)


@pytest.mark.parametrize("vector", [torch.zeros(32), torch.linspace(-1.0, 3.0, 32)])
def test_text_vectors_that_are_all_equal_are_refused_by_name(vector: torch.Tensor) -> None:
    bridge = Bridge(32, 8, TuneSettings())
    with pytest.raises(InputError, match="50 items with text and clicks the same vector"):
        start_projection(bridge, vector.expand(50, 32), torch.randn(50, 8), token_norm=1.5)


def test_whitened_vectors_are_uncorrelated_and_directions_without_variance_vanish() -> None:
    rng = np.random.default_rng(0)
    flat = torch.from_numpy(rng.normal(size=(400, 5)) @ rng.normal(size=(5, 12)) + 3.0)
    mean, weights = whitening(flat, 8)
    white = (flat - mean) @ weights.T
    covariance = white.T @ white / (len(white) - 1)
    assert torch.allclose(covariance[:5, :5], torch.eye(5, dtype=white.dtype), atol=1e-6)
    assert float(white[:, 5:].abs().max()) == 0.0
