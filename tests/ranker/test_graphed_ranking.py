"""The ranker's path on a device ranks as the host does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from waits_found import WaitsFound

from llmgr_core.encoders import click_gru, ragged_rows
from llmgr_core.errors import LlmgrError
from llmgr_core.ranker import RankerRuntime, RowChange, ScoringSettings
from llmgr_core.ranker import graphed_ranking as module
from llmgr_core.ranker.device_rows import DeviceRows
from llmgr_core.ranker.graphed_ranking import GraphedRanking
from llmgr_core.settings.encoder import EncoderSettings

ITEMS = 60
NOTHING_KNOWN = np.array([-1, -1], dtype=np.int64)

ENCODERS = {
    "gcsan": EncoderSettings(name="gcsan", dimension=16, max_clicks=12, attention_layers=2, attention_heads=2),
    "srgnn, binary edges, inner products": EncoderSettings(
        name="srgnn", dimension=16, max_clicks=12, layers=2, edges="binary", logits="dot"
    ),
}
# None of them has a graph layer.
OF_CLICKS = {
    name: EncoderSettings(name=name, dimension=16, max_clicks=12, attention_layers=2, attention_heads=2)
    for name in ("gru4rec", "stamp", "narm", "sasrec", "bsarec")
}


def at(*indices: int) -> np.ndarray:
    return np.array(indices, dtype=np.int64)


@pytest.fixture(params=ENCODERS)
def encoder(request: pytest.FixtureRequest) -> EncoderSettings:
    return ENCODERS[request.param]


def pair(
    make_stored, encoder: EncoderSettings, items: int = ITEMS, device: str = "cpu", **more
) -> tuple[RankerRuntime, GraphedRanking]:
    stored = make_stored(items, encoder=encoder, **more)
    vectors = np.random.default_rng(1).normal(size=(items, 12)).astype(np.float16)
    runtime = RankerRuntime(stored.parts("v1", [f"item-{n}" for n in range(items)]), vectors)
    return runtime, GraphedRanking(stored, runtime, device)


def assert_same(runtime: RankerRuntime, ranking: GraphedRanking, *query, **options) -> None:
    expected, found = runtime.snapshot.rank(*query, **options), ranking.snapshot().rank(*query, **options)
    assert found.indices.tolist() == expected.indices.tolist()
    np.testing.assert_allclose(found.scores, expected.scores, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=1e-4, atol=1e-7)
    assert found.fallback == expected.fallback


QUERIES = {
    "one click": ((at(3),), {}),
    "repeats and self-loops": ((at(3, 9, 3, 3, 27), 7), {}),
    "a session as long as its buffers": ((at(*range(8)), 5), {}),
    "more clicks than are encoded": ((at(*range(20), 3, 3), 20), {}),
    "unknown clicks": ((at(-1, 5, -1, 8), 20), {}),
    "exclusions": ((at(1, 2), 20, at(4, 5, -1, 4)), {}),
    "candidates": ((at(1, 2), 20, at(7), at(7, 9, 9, 1, -1, 30)), {}),
    "candidates that nobody knows": ((at(1), 20, None, at(-1)), {}),
    "everything excluded": ((at(1), 20, np.arange(ITEMS)), {}),
    "seen items allowed": ((at(1, 2, 1), 20), {"include_seen": True}),
    "the whole catalogue": ((at(4, 6), 1000), {}),
    "nothing known": ((NOTHING_KNOWN, 5), {}),
}


@pytest.mark.parametrize("query", QUERIES)
def test_every_kind_of_request_is_ranked_as_on_the_host(make_stored, encoder, query):
    runtime, ranking = pair(make_stored, encoder)
    arguments, options = QUERIES[query]
    assert_same(runtime, ranking, *arguments, **options)


@pytest.mark.parametrize("name", OF_CLICKS)
def test_encoders_without_a_graph_rank_as_on_the_host_and_never_wait(make_stored, name, monkeypatch):
    for encoders_module in (ragged_rows, click_gru):
        monkeypatch.setattr(encoders_module, "fixed_widths", lambda device: True)
    runtime, ranking = pair(make_stored, OF_CLICKS[name])
    for query in ("one click", "repeats and self-loops", "more clicks than are encoded"):
        arguments, options = QUERIES[query]
        assert_same(runtime, ranking, *arguments, **options)
    program = next(iter(ranking._programs.values()))
    batch = program.buffers.batch()
    vectors = ranking._rows.vectors(batch.node_items)
    # Checks of index ranges read the indices, on the host alone.
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    with torch.inference_mode(), WaitsFound() as waits:
        ranking._encoder(vectors, batch)
    assert waits.seen
    assert waits.found == []


@pytest.mark.parametrize("query", ["repeats and self-loops", "exclusions", "candidates", "everything excluded"])
def test_the_kernels_rank_alike(make_stored, encoder, query, monkeypatch):
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        pytest.skip("the interpreter's case; that on a GPU is marked gpu")
    monkeypatch.setenv("LLMGR_KERNELS", "triton")
    runtime, ranking = pair(make_stored, encoder)
    arguments, options = QUERIES[query]
    assert_same(runtime, ranking, *arguments, **options)


def test_random_requests_on_a_real_size_are_ranked_alike(make_stored):
    encoder = EncoderSettings(dimension=64)
    runtime, ranking = pair(make_stored, encoder, items=12_101)
    random = np.random.default_rng(0)
    for number in range(25):
        clicks = random.integers(0, 12_101, random.integers(1, 40))
        excluded = random.integers(0, 12_101, 300) if number % 3 == 0 else None
        candidates = random.integers(0, 12_101, 100) if number % 4 == 0 else None
        assert_same(runtime, ranking, clicks, 20, excluded, candidates)


def test_sessions_leave_nothing_behind_for_the_next(make_stored, encoder):
    runtime, ranking = pair(make_stored, encoder)
    for query in (at(*range(8)), at(3), at(5, 5, 5, 5, 6), at(9, 8)):
        assert_same(runtime, ranking, query, 20, at(*range(20, 30)))
        assert_same(runtime, ranking, query, 20, None, at(3, 4, 5))
        assert_same(runtime, ranking, query, 20)


def new_vector(seed: int) -> np.ndarray:
    return np.random.default_rng(100 + seed).normal(size=12).astype(np.float16)


def test_inserts_edits_and_deletions_are_followed_in_place(make_stored, encoder):
    runtime, ranking = pair(make_stored, encoder)
    table = ranking._rows.table
    runtime.upsert("new", new_vector(1))
    assert_same(runtime, ranking, at(1, 2, ITEMS), 100)
    runtime.upsert("item-3", new_vector(2))
    runtime.remove("item-4")
    assert_same(runtime, ranking, at(3, 4), 100)
    assert_same(runtime, ranking, at(3), 100)
    runtime.upsert("item-4", new_vector(3))
    assert_same(runtime, ranking, at(3, 4), 100)
    assert ranking._rows.table is table


def test_rows_that_outgrow_their_memory_get_a_larger_one(make_stored, encoder):
    runtime, ranking = pair(make_stored, encoder)
    before = ranking._rows.table
    assert_same(runtime, ranking, at(1, 2), 20)
    runtime.apply([RowChange(f"new-{number}", new_vector(number)) for number in range(len(before) - ITEMS)])
    assert_same(runtime, ranking, at(1, 2, ITEMS + 3), 100)
    assert len(ranking._rows.table) > len(before)
    assert not ranking._rows.rankable[ranking._rows.spare]


def test_rows_of_several_blocks_are_brought_up_to_date_where_they_changed(make_stored, monkeypatch):
    from llmgr_core.ranker import device_rows, item_rows

    for one in (item_rows, device_rows):
        monkeypatch.setattr(one, "BLOCK_ROWS", 16)
    runtime, ranking = pair(make_stored, ENCODERS["gcsan"])
    runtime.apply([RowChange("item-20", new_vector(1)), RowChange("a", new_vector(2)), RowChange("b", new_vector(3))])
    runtime.apply([RowChange("item-59", new_vector(4)), *(RowChange(f"c{n}", new_vector(n)) for n in range(20))])
    assert_same(runtime, ranking, at(20, 59, 61), 100)
    fresh = DeviceRows(runtime.snapshot, torch.device("cpu"))
    assert torch.equal(ranking._rows.table[: runtime.snapshot.num_items], fresh.table[: runtime.snapshot.num_items])


def test_an_older_state_is_ranked_as_it_was(make_stored, encoder):
    runtime, ranking = pair(make_stored, encoder)
    before = ranking.snapshot()
    expected = runtime.snapshot.rank(at(1, 2), 100)
    runtime.remove(f"item-{expected.indices[0]}")
    assert ranking.snapshot().rank(at(1, 2), 100).indices[0] != expected.indices[0]
    assert before.rank(at(1, 2), 100).indices.tolist() == expected.indices.tolist()


def test_items_without_a_row_count_as_seen_and_are_not_encoded(make_stored, encoder):
    stored = make_stored(ITEMS, encoder=encoder, without_id=(5,), text_dimension=0)
    runtime = RankerRuntime(stored.parts("v1", [f"item-{n}" for n in range(ITEMS)]))
    ranking = GraphedRanking(stored, runtime, "cpu")
    assert_same(runtime, ranking, at(1, 5, 2), 100)
    assert_same(runtime, ranking, at(5), 100)


def test_long_sessions_are_left_to_the_host(make_stored, monkeypatch):
    runtime, ranking = pair(make_stored, EncoderSettings(name="srgnn", dimension=16, max_clicks=200))
    monkeypatch.setattr(module, "SessionBuffers", None)
    assert_same(runtime, ranking, np.arange(ITEMS).repeat(2), 20, include_seen=True)


def test_no_transition_term_no_difference(make_stored, encoder):
    assert_same(*pair(make_stored, encoder, scoring=ScoringSettings()), at(1, 2, 3), 20)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_machine_without_cuda_says_so(make_stored):
    with pytest.raises(LlmgrError, match="no CUDA device"):
        pair(make_stored, ENCODERS["gcsan"], device="cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("query", list(QUERIES))
def test_captured_graphs_rank_alike(make_stored, encoder, query):
    runtime, ranking = pair(make_stored, encoder, device="cuda")
    arguments, options = QUERIES[query]
    for _ in range(3):
        assert_same(runtime, ranking, *arguments, **options)
    runtime.upsert("item-3", new_vector(2))
    runtime.remove("item-9")
    assert_same(runtime, ranking, *arguments, **options)
    assert all(program._captured is not None for program in ranking._programs.values())


@pytest.mark.parametrize("query", ["repeats and self-loops", "candidates"])
def test_what_a_graph_captures_never_waits_for_the_device(make_stored, encoder, query, monkeypatch):
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        pytest.skip("the interpreter's case; that on a GPU is marked gpu")
    monkeypatch.setenv("LLMGR_KERNELS", "triton")
    # Checks of index ranges read the indices, on the host alone.
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    _, ranking = pair(make_stored, encoder)
    arguments, options = QUERIES[query]
    ranking.snapshot().rank(*arguments, **options)
    (program,) = ranking._programs.values()
    with torch.inference_mode(), WaitsFound() as waits:
        program._work()
    assert "llmgr.score_topk.default" in waits.seen
    assert waits.found == []


def test_weights_are_folded_when_a_ranker_is_loaded_and_never_again(make_stored, encoder, monkeypatch):
    from kernels.gated_graph import torch_path

    runtime, ranking = pair(make_stored, encoder)
    seen: list[type] = []
    fold = torch_path.folded
    monkeypatch.setattr(torch_path, "folded", lambda weights: (seen.append(type(weights)), fold(weights))[1])
    assert_same(runtime, ranking, at(1, 2, 1), 20)
    assert {one.__name__ for one in seen} == {"FoldedGraphWeights"}
