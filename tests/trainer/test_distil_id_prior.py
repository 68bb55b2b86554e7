"""How much an item's ID vector counts beside its text."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from stored_ranker import make_stored

from llmgr_core.ranker import RankerRuntime
from llmgr_core.ranker.stored import StoredRanker
from llmgr_core.sessions import Examples, Sessions
from llmgr_core.settings.transitions import TransitionSettings
from llmgr_core.transitions import TransitionGraph
from llmgr_core.transitions.borrowing import BorrowedTransitions
from trainer.distil.id_prior import fit_id_prior
from trainer.distil.scorer import RankerScorer
from trainer.distil.transition_weight import TransitionFit

ITEMS = 60
PLAIN = TransitionFit(0.0, 5.0, 0.25, 0.25, None, None)


def with_prior(prior: float) -> StoredRanker:
    stored = make_stored(ITEMS, without_id=(50, 51))
    return dataclasses.replace(stored, description=stored.description.model_copy(update={"id_prior": prior}))


@pytest.mark.parametrize("prior", [0.0, 0.5, 3.0])
def test_a_row_is_the_weighed_id_vector_plus_text_wherever_it_is_made(prior, tmp_path):
    with_prior(prior).write(tmp_path)
    stored = StoredRanker.read(tmp_path)
    vectors = np.random.default_rng(1).normal(size=(ITEMS, 12)).astype(np.float16)
    np.testing.assert_array_equal(stored.tensors["id_table"], with_prior(0.0).tensors["id_table"])
    runtime = RankerRuntime(stored.parts("v1", [f"item-{number}" for number in range(ITEMS)]), vectors)
    scorer = RankerScorer(stored, vectors)
    unit = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    text = unit @ stored.transform.matrix + stored.transform.offset
    for item in (0, 7, 50):
        n = stored.popularity[item]
        weight = n / (n + prior) if n else 0.0
        row = weight * stored.tensors["id_table"][item] + text[item] * (1.0 if n else stored.transform.text_only_scale)
        np.testing.assert_allclose(runtime.snapshot.rows.vectors(np.array([item]))[0], row, rtol=1e-3, atol=1e-4)
    clicks = np.array([3, 9, 3, 27])
    ranking = runtime.rank(clicks, 20)
    scores = scorer.scores(Examples.last_click(Sessions.from_lists([[*clicks.tolist(), 5]])))[0].clone()
    scores[clicks] = -torch.inf
    np.testing.assert_allclose(ranking.scores, scores[ranking.indices].numpy(), rtol=1e-4, atol=1e-4)
    assert ranking.indices.tolist() == scores.argsort(descending=True)[:20].tolist()


def test_an_edited_item_keeps_the_weight_of_its_id():
    stored = with_prior(2.0)
    vectors = np.random.default_rng(1).normal(size=(ITEMS, 12)).astype(np.float16)
    names = [f"item-{number}" for number in range(ITEMS)]
    edited = vectors.copy()
    edited[7] = np.random.default_rng(2).normal(size=12)
    live = RankerRuntime(stored.parts("v1", names), vectors)
    live.upsert("item-7", edited[7])
    fresh = RankerRuntime(stored.parts("v1", names), edited)
    where = np.array([7])
    np.testing.assert_allclose(live.snapshot.rows.vectors(where), fresh.snapshot.rows.vectors(where), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("target_ranks", "chosen"), [({0.0: 5, 1.0: 1, 4.0: 1}, 1.0), ({0.0: 1, 1.0: 2, 4.0: 9}, 0.0)])
def test_the_best_on_validation_is_chosen_and_the_smallest_of_equals(target_ranks, chosen):
    sessions = Sessions.from_lists([[1, 2], [3, 4], [5, 6]])
    validation = Examples.last_click(sessions)
    graph = BorrowedTransitions(TransitionGraph.build(sessions, ITEMS, TransitionSettings()))

    def scores_of(prior):
        def score(examples):
            scores = -torch.arange(ITEMS, dtype=torch.float32).repeat(len(examples), 1) - 100.0
            scores[:, 40 : 40 + target_ranks[prior] - 1] = 10.0
            return scores.scatter_(1, torch.from_numpy(examples.targets.astype(np.int64))[:, None], 5.0)

        return score

    term = dataclasses.replace(PLAIN, validation=float(1 / np.log2(1 + target_ranks[0.0])))
    fit = fit_id_prior(0.0, [1.0, 4.0], scores_of, graph, term, validation, include_seen=False)
    assert fit.chosen == chosen
    assert fit.validation["4"] == pytest.approx(1 / np.log2(1 + target_ranks[4.0]))
