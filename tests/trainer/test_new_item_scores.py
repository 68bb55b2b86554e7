"""A new item in a server has the row, the lenders and the score that evaluation gave it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from llmgr_core.artefacts import draft_artefact
from llmgr_core.bundle import EngineReference, write_bundle
from llmgr_core.data.item import Item
from llmgr_core.ranker import FoldedTransform, RankerRuntime, ScoringSettings
from llmgr_core.ranker.online import OnlineRanker
from llmgr_core.ranker.stored import RankerDescription, StoredRanker
from llmgr_core.ranker.text_lenders import TextLenders
from llmgr_core.ranker.whitening import Whitening
from llmgr_core.sessions import Examples, Sessions
from llmgr_core.settings import load_settings
from llmgr_core.settings.encoder import EncoderSettings
from llmgr_core.settings.transitions import TransitionSettings
from llmgr_core.store import EmbeddingStore
from llmgr_core.store.item_encoder import ItemEncoder
from llmgr_core.transitions import TransitionGraph
from llmgr_core.transitions.text_smoothing import smooth_by_text
from services.client import EmbeddingClient, RankingClient
from services.embedding.background import serve_in_background
from services.ranking.server import RankingServer
from trainer.distil import RankerScorer

ITEMS, HELDOUT, WIDTH = 90, 20, 48
WARM = ITEMS - HELDOUT
FINGERPRINT = "f" * 64
NAMES = [f"item-{n}" for n in range(ITEMS)]


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return np.random.default_rng(5).normal(size=(ITEMS, WIDTH)).astype(np.float16)


@pytest.fixture(scope="module")
def stored(vectors: np.ndarray) -> StoredRanker:
    """A ranker over a catalogue whose last items were held out of training."""
    rng = np.random.default_rng(6)
    train = Sessions.from_lists([rng.integers(0, WARM, 6).tolist() for _ in range(120)])
    counts = train.click_counts(ITEMS)
    encoder = EncoderSettings(name="srgnn", dimension=32, max_clicks=6)
    torch.manual_seed(6)
    model = OnlineRanker(ITEMS, encoder, head_hidden=8)
    whitening = Whitening.fit(vectors[:WARM], 16, 1.0)
    knobs = TransitionSettings(text_new_rank=16)
    graph = smooth_by_text(TransitionGraph.build(train, ITEMS, knobs), whitening.apply(vectors), counts)
    description = RankerDescription(
        variant="frozen-text",
        num_items=ITEMS,
        encoder=encoder,
        head_hidden=8,
        text_dimension=WIDTH,
        fingerprint=FINGERPRINT,
        scoring=ScoringSettings(transition_weight=2.0, transition_slope=20.0, temperature=1.3, include_seen=True),
    )
    return StoredRanker(
        description,
        {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()},
        has_id=counts > 0,
        popularity=counts,
        transform=FoldedTransform(rng.normal(size=(WIDTH, 32)).astype(np.float32), rng.normal(size=32).astype(np.float32), 0.8),
        transitions=graph,
        lenders=TextLenders.collect(whitening, vectors, counts > 0, 16),
    )


def first_items(stored: StoredRanker, known: int) -> StoredRanker:
    """The same ranker over a catalogue that ends before the items that came later."""
    return dataclasses.replace(
        stored,
        description=stored.description.model_copy(update={"num_items": known}),
        tensors={**stored.tensors, "id_table": stored.id_vectors[:known]},
        has_id=stored.has_id[:known],
        popularity=stored.popularity[:known],
        transitions=TransitionGraph(stored.transitions.settings, *_first_rows(stored.transitions, known)),
    )


def serving(stored: StoredRanker, vectors: np.ndarray, known: int) -> RankerRuntime:
    """A ranker whose bundle has the first ``known`` items only; the others are inserted while it runs."""
    runtime = RankerRuntime(first_items(stored, known).parts("v1", NAMES[:known]), vectors[:known])
    for item in range(known, ITEMS):
        runtime.upsert(NAMES[item], vectors[item])
    return runtime


def _first_rows(graph: TransitionGraph, known: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    end = graph.indptr[known]
    assert end == graph.num_edges, "only items that were never clicked are cut off"
    return graph.indptr[: known + 1], graph.neighbours[:end], graph.weights[:end]


@pytest.mark.parametrize("known", [WARM, ITEMS - 7, ITEMS])
def test_an_inserted_item_has_the_evaluated_row_and_lenders_bit_for_bit(stored, vectors, known):
    evaluated = stored.transform.rows(stored.id_vectors, stored.has_id, vectors, np.ones(ITEMS, dtype=np.bool_))
    at_once = stored.lenders.lend(stored.transitions, vectors, stored.popularity == 0)
    runtime = serving(stored, vectors, known)
    served = runtime.snapshot.transitions
    for item in range(WARM, ITEMS):
        row = runtime.parts.transform.row(None, vectors[item])
        np.testing.assert_array_equal(row, evaluated[item])
        for mine, its in zip(served.rows[item], at_once.rows[item], strict=True):
            np.testing.assert_array_equal(mine, its)
    for name in ("lender", "borrower", "share"):
        np.testing.assert_array_equal(getattr(served, name), getattr(at_once, name))
    reference = RankerRuntime(stored.parts("v1", NAMES), vectors).snapshot.rows
    every = np.arange(WARM, ITEMS)
    np.testing.assert_array_equal(runtime.snapshot.rows.vectors(every), reference.vectors(every))


@pytest.mark.parametrize("known", [WARM, ITEMS])
@pytest.mark.parametrize("clicks", [[3], [5, 60, 5, 11], [1, WARM + 2, 8], [WARM]])
def test_a_server_scores_every_item_as_evaluation_does(stored, vectors, known, clicks):
    sessions = Sessions.from_lists([[*clicks, 0]])
    expected = RankerScorer(stored, vectors).scores(Examples.last_click(sessions)).numpy()[0]
    ranking = serving(stored, vectors, known).rank(np.array(clicks, dtype=np.int64), ITEMS)
    found = np.zeros(ITEMS, dtype=np.float32)
    found[ranking.indices] = ranking.scores
    np.testing.assert_allclose(found, expected, atol=2e-5)
    without = RankerScorer(dataclasses.replace(stored, lenders=None), vectors).scores(Examples.last_click(sessions))
    assert (expected[WARM:] > without.numpy()[0, WARM:] + 0.01).any(), "new items borrow nothing, nothing was tested"


class KnownTexts:
    """A language model that reads "text 7" and answers with the seventh vector."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors

    def embed_texts(self, texts: list[str]) -> np.ndarray:
        return self.vectors[[int(text.removeprefix("text ")) for text in texts]].astype(np.float32)


class Titles:
    def clean(self, item: Item) -> str | None:
        return item.title


def test_embedded_and_ranked_by_running_servers_it_is_what_was_evaluated(stored, vectors, tmp_path: Path):
    """EmbedItem -> store -> table -> RankSession, over gRPC: the evaluated row bit for bit, the evaluated scores."""
    engine = EngineReference(
        settings={}, base_hash="", adapter_hash="", fingerprint=FINGERPRINT, prompt_version="", hidden_size=WIDTH
    )
    with draft_artefact(tmp_path / "bundle", "bundle", [], {}) as draft:
        write_bundle(draft.path, first_items(stored, WARM), NAMES[:WARM], cleaner_state={}, engine=engine)
    knobs = load_settings(
        None, ["serve.embedding_port=0", "serve.ranking_port=0", "serve.metrics_port=-1", "embed.metrics_port=-1"]
    )
    encoder = ItemEncoder(Titles(), KnownTexts(vectors), FINGERPRINT, WIDTH, "known texts")
    items = [Item(name, title=f"text {number}") for number, name in enumerate(NAMES)]
    clicks = ["item-5", "item-60", NAMES[WARM + 2], "item-11"]
    with serve_in_background(encoder, tmp_path / "store", knobs) as listening, EmbeddingClient(listening.address) as embedding:
        for item in items[:WARM]:
            embedding.embed(item)
        with RankingServer(tmp_path / "bundle", tmp_path / "store", knobs.serve) as server:
            last = [embedding.embed(item) for item in items[WARM:]][-1].sequence
            with RankingClient(server.address) as client:
                answer = client.rank(clicks, top_k=ITEMS, include_seen=True, min_sequence=last)
            snapshot = server.current.ranker.snapshot
            places = snapshot.indices(NAMES[WARM:])
            served = snapshot.rows.vectors(places)
    with EmbeddingStore.open(tmp_path / "store") as store:
        held, present = store.read_vectors(NAMES, FINGERPRINT)
    assert present.all()
    evaluated = stored.transform.rows(stored.id_vectors, stored.has_id, held, present)[WARM:]
    reference = RankerRuntime(stored.parts("v1", NAMES), held).snapshot.rows.vectors(np.arange(WARM, ITEMS))
    np.testing.assert_array_equal(served, reference)
    np.testing.assert_allclose(served, evaluated, rtol=1e-6, atol=1e-7)  # a table holds directions and lengths
    prefix = Sessions.from_lists([[*(NAMES.index(name) for name in clicks), 0]])
    expected = RankerScorer(stored, held).scores(Examples.last_click(prefix)).numpy()[0]
    found = {one.item_id: one.score for one in answer.items}
    assert len(found) == ITEMS
    np.testing.assert_allclose([found[name] for name in NAMES], expected, atol=2e-5)
