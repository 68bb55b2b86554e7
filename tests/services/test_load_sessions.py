"""Sessions to ask with have the popularity and the lengths of the data they were fitted to."""

from __future__ import annotations

import numpy as np
import pytest
from bundle_fixture import ITEMS

from llmgr_core.bundle import Bundle
from llmgr_core.sessions import Sessions
from services.contract import ranking_service_pb2 as messages
from services.load.session_source import SessionSource, fit_lengths
from services.load.zipf import ZipfLaw


@pytest.mark.parametrize("law", [ZipfLaw(1.0, 0.0, 500), ZipfLaw(0.9, 150.0, 5000), ZipfLaw(2.7, 7.0, 200)])
def test_a_law_is_found_again_in_what_was_drawn_from_it(law):
    drawn = np.random.default_rng(1).choice(law.size, 200_000, p=law.probabilities())
    fitted = ZipfLaw.fitted(np.bincount(drawn, minlength=law.size))
    assert np.abs(fitted.probabilities() - law.probabilities()).sum() < 0.02


def test_no_other_law_is_more_likely():
    counts = np.random.default_rng(2).poisson(3000 * ZipfLaw(1.2, 4.0, 300).probabilities())
    fitted = ZipfLaw.fitted(counts)

    def likelihood(law: ZipfLaw) -> float:
        return float(counts @ np.log(law.probabilities()))

    for exponent in (-0.05, 0.05):
        assert likelihood(fitted) > likelihood(ZipfLaw(fitted.exponent + exponent, fitted.shift, 300))
    for factor in (0.8, 1.25):
        assert likelihood(fitted) > likelihood(ZipfLaw(fitted.exponent, fitted.shift * factor, 300))


def test_sessions_follow_the_clicks_of_the_bundle(catalogue):
    parts = Bundle.open(catalogue.bundle).parts
    source = SessionSource.from_bundle(parts)
    random = np.random.default_rng(3)
    sessions = source.draw(20_000, random)
    clicks = np.bincount([int(item.removeprefix("item-")) for session in sessions for item in session], minlength=ITEMS)
    # Popular in training, popular in the load; and as skewed.
    assert np.corrcoef(clicks, parts.popularity)[0, 1] > 0.95
    head = np.argsort(-parts.popularity)[:12]
    share = parts.popularity[head].sum() / parts.popularity.sum()
    assert clicks[head].sum() / clicks.sum() == pytest.approx(share, abs=0.1)
    lengths = np.array([len(session) for session in sessions])
    assert lengths.min() == 1
    assert lengths.mean() == pytest.approx(9.2, abs=0.5)
    assert source.draw(50, np.random.default_rng(4)) == source.draw(50, np.random.default_rng(4))


def test_lengths_are_those_of_requests_after_each_click_but_the_last():
    sessions = Sessions.from_lists([[1, 2, 3]] * 600 + [[1, 2]] * 400)
    # 1,000 requests of one click, 600 of two.
    assert fit_lengths(sessions.lengths).probabilities() == pytest.approx([0.625, 0.375], abs=0.01)


def test_requests_are_messages_with_the_sessions_in_them(catalogue):
    source = SessionSource.from_bundle(Bundle.open(catalogue.bundle).parts)
    requests = [messages.RankSessionRequest.FromString(raw) for raw in source.requests(30, np.random.default_rng(5), top_k=7)]
    assert [list(one.item_ids) for one in requests] == source.draw(30, np.random.default_rng(5))
    assert {one.top_k for one in requests} == {7}
