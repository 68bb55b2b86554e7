"""The weight of the transition term and the temperature are fitted on validation, with held-out items in mind."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from llmgr_core.evaluation import expected_ranks, summarise
from llmgr_core.sessions import Examples, Sessions
from llmgr_core.settings.transitions import TransitionSettings
from llmgr_core.transitions import TransitionGraph
from trainer.distil.temperature import fit_temperature
from trainer.distil.transition_weight import SLOPES, WEIGHTS, fit_transition_weight, hide_seen

ITEMS = 120


@pytest.fixture(scope="module")
def chains() -> Sessions:
    """Item i is usually followed by i + 1."""
    rng = np.random.default_rng(0)
    sessions = []
    for _ in range(600):
        item = int(rng.integers(0, ITEMS - 20))
        session = [item]
        for _ in range(4):
            item = (item + 1) % (ITEMS - 20) if rng.random() < 0.6 else int(rng.integers(0, ITEMS - 20))
            session.append(item)
        sessions.append(session)
    return Sessions.from_lists(sessions)


def graph_of(chains: Sessions) -> TransitionGraph:
    train = Sessions.from_lists([chains[number][:-1].tolist() for number in range(len(chains))])
    return TransitionGraph.build(train, ITEMS, TransitionSettings()).pruned()


def noisy_logits(examples: Examples) -> torch.Tensor:
    """A weak model: the target a little above the rest, four times too sure of itself."""
    generator = torch.Generator().manual_seed(int(examples.targets.sum()) + len(examples))
    logits = torch.randn(len(examples), ITEMS, generator=generator)
    logits[torch.arange(len(examples)), torch.from_numpy(examples.targets.astype(np.int64))] += 1.0
    return 4.0 * logits


def nothing(examples: Examples) -> Examples:
    return examples.select(slice(0, 0))


def test_weight_is_the_best_of_the_grid_and_its_metric_is_exact(chains: Sessions) -> None:
    graph, examples = graph_of(chains), Examples.last_click(chains)
    cached = noisy_logits(examples)
    lookup = {int(start): row for row, start in enumerate(examples.starts)}

    def score(batch: Examples) -> torch.Tensor:
        return cached[[lookup[int(start)] for start in batch.starts]].clone()

    fit = fit_transition_weight(score, graph, examples, nothing(examples), include_seen=False, heldout_loss=0.05)
    transitions = graph.scores(examples.prefixes(graph.settings.clicks))
    found = {}
    for slope in SLOPES:
        for weight in WEIGHTS:
            scores = cached + weight * torch.log1p(slope * transitions)
            ranks, _ = expected_ranks(scores, examples.targets, examples.prefixes())
            found[weight, slope] = summarise(ranks)["NDCG@20"]
    assert fit.weight > 0
    assert fit.validation == pytest.approx(max(found.values()), abs=1e-6)
    assert fit.validation == pytest.approx(found[fit.weight, fit.slope], abs=1e-6)
    assert fit.validation_without == pytest.approx(found[0.0, SLOPES[0]], abs=1e-6)
    assert fit.heldout is None


def test_heldout_items_limit_the_weight(chains: Sessions) -> None:
    graph, examples = graph_of(chains), Examples.last_click(chains)
    cold = examples.select(slice(0, 200))
    cold = Examples(cold.items, cold.starts, cold.ends, np.full(200, ITEMS - 1, dtype=np.int32), cold.sessions)
    free = fit_transition_weight(noisy_logits, graph, examples, nothing(examples), include_seen=False, heldout_loss=0.05)
    held = fit_transition_weight(noisy_logits, graph, examples, cold, include_seen=False, heldout_loss=0.05)
    strict = fit_transition_weight(noisy_logits, graph, examples, cold, include_seen=False, heldout_loss=0.0)
    assert held.heldout is not None
    assert held.heldout_without is not None
    assert held.heldout >= 0.95 * held.heldout_without
    assert strict.heldout == pytest.approx(strict.heldout_without)
    assert strict.validation <= held.validation <= free.validation


def test_without_validation_there_is_no_term_and_no_temperature(chains: Sessions) -> None:
    none = nothing(Examples.last_click(chains))
    fit = fit_transition_weight(noisy_logits, graph_of(chains), none, none, include_seen=False, heldout_loss=0.05)
    assert fit.weight == 0.0
    assert fit_temperature(noisy_logits, none, include_seen=False).temperature == 1.0


def test_temperature_improves_likelihood_and_calibration(chains: Sessions) -> None:
    fit = fit_temperature(noisy_logits, Examples.last_click(chains), include_seen=False)
    assert 3.0 < fit.temperature < 6.0
    assert fit.nll_after < fit.nll_before - 0.1
    assert fit.ece_after < 0.5 * fit.ece_before


def test_calibrated_scores_keep_their_temperature(chains: Sessions) -> None:
    examples = Examples.last_click(chains)
    first = fit_temperature(noisy_logits, examples, include_seen=True).temperature
    again = fit_temperature(lambda batch: noisy_logits(batch) / first, examples, include_seen=True).temperature
    assert again == pytest.approx(1.0, abs=0.01)


def test_masking_hides_the_whole_prefix_and_nothing_else() -> None:
    examples = Examples.last_click(Sessions.from_lists([[1, 2, 1, 5], [3, 4]]))
    hidden = torch.isinf(hide_seen(torch.zeros(2, 6), examples, include_seen=False))
    assert hidden.nonzero().tolist() == [[0, 1], [0, 2], [1, 3]]
    assert not torch.isinf(hide_seen(torch.zeros(2, 6), examples, include_seen=True)).any()


def test_repeated_targets_do_not_count_where_seen_items_are_hidden() -> None:
    sessions = Sessions.from_lists([[1, 2, 1]] * 8 + [[3, 4]] * 8)
    fit = fit_temperature(lambda batch: torch.zeros(len(batch), 6), Examples.last_click(sessions), include_seen=False)
    assert fit.examples == 4
    assert np.isfinite(fit.nll_after)
