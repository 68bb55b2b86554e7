"""Where the ranking server ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from llmgr_core.errors import LlmgrError
from llmgr_core.ranker.graphed_ranking import GraphedRanking
from llmgr_core.settings.serve import ServeSettings
from services.ranking.answers import rank_query
from services.ranking.live_ranker import LiveRanker
from services.ranking.server import RankingServer
from services.ranking.session_query import SessionQuery


def query(*item_ids: str) -> SessionQuery:
    return SessionQuery(item_ids, top_k=10, candidates=None, excluded=(), include_seen=None, min_sequence=0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_server_asked_for_cuda_where_there_is_none_says_so(catalogue):
    settings = ServeSettings(ranking_port=0, metrics_port=-1, device="cuda")
    with pytest.raises(LlmgrError, match="no CUDA device") as raised:
        RankingServer(catalogue.bundle, catalogue.store, settings)
    assert raised.value.hint == 'set serve.device to "cpu"'


def test_answers_of_the_device_path_are_those_of_the_host(catalogue):
    ranker = LiveRanker.open(catalogue.bundle, catalogue.store)
    on_host = [rank_query(query(*ids), ranker.snapshot) for ids in (["item-1", "item-2"], ["item-3"], ["nobody"])]
    ranker._graphs = GraphedRanking(ranker.bundle.ranker, ranker.runtime, "cpu")
    on_device = [rank_query(query(*ids), ranker.snapshot) for ids in (["item-1", "item-2"], ["item-3"], ["nobody"])]
    for found, expected in zip(on_device, on_host, strict=True):
        assert [item.item_id for item in found.items] == [item.item_id for item in expected.items]
        assert np.allclose([item.probability for item in found.items], [item.probability for item in expected.items])
        assert found.sequence == expected.sequence
        assert found.fallback == expected.fallback
    ranker.close()


@pytest.mark.gpu
def test_a_server_on_cuda_warms_up_and_answers(catalogue):
    ranker = LiveRanker.open(catalogue.bundle, catalogue.store, "cuda")
    assert len(rank_query(query("item-1"), ranker.snapshot).items) == 10
    ranker.close()
