"""Expected ranks against a naive ranker, and metrics against an independent library."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmgr_core.errors import InputError
from llmgr_core.evaluation import METRICS, evaluate, expected_ranks, per_example_metrics, summarise
from llmgr_core.evaluation.calibration import top_probabilities
from llmgr_core.sessions import Examples, Sessions

NUM_ITEMS = 5
RANX_PROGRAM = """
import json, sys
import numpy as np
import ranx

data = np.load(sys.argv[1])
qrels = ranx.Qrels({f"q{i}": {f"d{target}": 1} for i, target in enumerate(data["targets"])})
run = ranx.Run({f"q{i}": {f"d{item}": float(s) for item, s in enumerate(row)} for i, row in enumerate(data["scores"])})
names = ["hit_rate@5", "hit_rate@10", "hit_rate@20", "ndcg@5", "ndcg@10", "ndcg@20", "mrr@20"]
found = ranx.evaluate(qrels, run, names)
print(json.dumps([float(found[name]) for name in names]))
"""


def naive_rank(scores: list[float], target: int, left_out: set[int]) -> float:
    """Mean place of the target over every order of the items that the scores allow."""
    items = [item for item in range(len(scores)) if item not in left_out]
    if target not in items:
        return len(scores) + 1
    places = []
    for order in itertools.permutations(items):
        if all(scores[one] >= scores[other] for one, other in itertools.pairwise(order)):
            places.append(order.index(target) + 1)
    return float(np.mean(places))


@settings(max_examples=80, deadline=None)
@given(
    scores=st.lists(st.sampled_from([-np.inf, -1.0, 0.0, 0.5]), min_size=NUM_ITEMS, max_size=NUM_ITEMS),
    target=st.integers(0, NUM_ITEMS - 1),
    prefix=st.lists(st.integers(0, NUM_ITEMS - 1), max_size=4),
)
def test_the_rank_is_the_mean_over_all_ways_to_break_ties(scores, target, prefix):
    masked, unmasked = expected_ranks(torch.tensor([scores]), np.array([target]), Sessions.from_lists([prefix]))
    assert unmasked[0] == pytest.approx(naive_rank(scores, target, set()))
    assert masked[0] == pytest.approx(naive_rank(scores, target, set(prefix)))


def test_equal_scores_everywhere_put_the_target_in_the_middle():
    _, unmasked = expected_ranks(torch.zeros(2, 101), np.array([0, 77]), Sessions.from_lists([[], []]))
    assert unmasked.tolist() == [51.0, 51.0]


def test_a_repeated_click_is_masked_once():
    masked, _ = expected_ranks(torch.tensor([[3.0, 2.0, 1.0]]), np.array([2]), Sessions.from_lists([[0, 0, 0]]))
    assert masked.tolist() == [2.0]


def test_nan_is_refused_and_the_example_named():
    scores = torch.zeros(3, 4)
    scores[1, 2] = float("nan")
    with pytest.raises(ValueError, match=r"NaN \(example 1"):
        expected_ranks(scores, np.zeros(3, dtype=int), Sessions.from_lists([[], [], []]))


def test_nan_in_an_evaluation_names_scorer_and_example():
    class Broken:
        name = "broken"

        def scores(self, examples: Examples) -> torch.Tensor:
            return torch.where(torch.from_numpy(examples.targets == 5)[:, None], float("nan"), torch.zeros(len(examples), 9))

    examples = Examples.last_click(Sessions.from_lists([[0, 1], [0, 2], [0, 3], [0, 4], [0, 5], [0, 6]]))
    with pytest.raises(InputError, match=r"scorer 'broken' gives NaN as a score for example 4 \(session 4, target item 5\)"):
        evaluate(Broken(), examples, batch_size=3)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="2 targets"):
        expected_ranks(torch.zeros(3, 4), np.zeros(2, dtype=int), Sessions.from_lists([[], [], []]))


def test_metrics_of_known_ranks():
    values = dict(zip(METRICS, per_example_metrics(np.array([3.0]))[0], strict=True))
    assert values["HR@5"] == values["HR@20"] == 1
    assert values["NDCG@5"] == values["NDCG@20"] == pytest.approx(0.5)
    assert values["MRR@20"] == pytest.approx(1 / 3)
    assert per_example_metrics(np.array([21.0])).sum() == 0
    assert dict(zip(METRICS, per_example_metrics(np.array([10.5]))[0], strict=True))["HR@10"] == 0
    assert summarise(np.zeros(0)) == {}


def test_metrics_agree_with_ranx(tmp_path):
    generator = np.random.default_rng(3)
    scores = generator.permuted(np.tile(np.arange(40.0), (60, 1)), axis=1)
    targets = generator.integers(0, 40, size=60)
    _, ranks = expected_ranks(torch.from_numpy(scores), targets, Sessions.from_lists([[]] * 60))
    np.savez(tmp_path / "examples.npz", scores=scores, targets=targets)
    # A process of its own: without compilation ranx needs seconds, with it minutes.
    command = [sys.executable, "-c", RANX_PROGRAM, str(tmp_path / "examples.npz")]
    answer = subprocess.run(command, env={**os.environ, "NUMBA_DISABLE_JIT": "1"}, capture_output=True, text=True, check=True)
    theirs = json.loads(answer.stdout.splitlines()[-1])
    assert list(summarise(ranks).values()) == pytest.approx(theirs)


def test_top_probability_is_the_softmax_of_what_may_be_recommended():
    scores = torch.tensor([[2.0, 1.0, 0.0]])
    probability, item = top_probabilities(scores, None)
    assert item.tolist() == [0]
    assert probability[0] == pytest.approx(float(scores.softmax(1)[0, 0]))
    probability, item = top_probabilities(scores, Sessions.from_lists([[0]]))
    assert item.tolist() == [1]
    assert probability[0] == pytest.approx(float(scores[:, 1:].softmax(1)[0, 0]))
    assert scores[0, 0] == 2.0, "the scores of the caller stay as they were"
