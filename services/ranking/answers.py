"""From a checked query to a reply."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from llmgr_core.ranker import Snapshot
from llmgr_core.ranker.snapshot import UNKNOWN, Scan
from services.contract import ranking_service_pb2
from services.ranking.session_query import SessionQuery
from services.ranking.shadow_scan import ShadowScan


def rank_query(
    query: SessionQuery,
    snapshot: Snapshot,
    between: Callable[[], None] | None = None,
    shadow: ShadowScan | None = None,
    scan: Scan | None = None,
) -> ranking_service_pb2.RankSessionResponse:
    """Rank one session on one state of the catalogue; ``timing.model_ns`` and its parts are filled in.

    Unknown ids of the session and of the candidates are listed once each, in the order sent; unknown exclusions have nothing to
    exclude. ``between`` is called now and then while the table is scored; what it raises ends the work. ``shadow`` is shown
    approximate rankings, whose items have no probability. ``scan`` scores the table together with that of others.
    """
    started = time.perf_counter_ns()
    clicks = snapshot.indices(query.clicks)
    candidates = None if query.candidates is None else snapshot.indices(query.candidates)
    excluded = snapshot.indices(query.excluded) if query.excluded else None
    ranking = snapshot.rank(clicks, query.top_k, excluded, candidates, query.include_seen, between, scan)
    reply = ranking_service_pb2.RankSessionResponse(
        unknown_item_ids=_unknown(query.clicks, clicks) | _unknown(query.candidates or (), candidates),
        model_version=snapshot.parts.version,
        sequence=snapshot.sequence,
        fallback=ranking.fallback,
    )
    # Made in place: half the time of making items and copying them in.
    add, item_id = reply.items.add, snapshot.item_id
    for index, score, probability in zip(
        ranking.indices.tolist(), ranking.scores.tolist(), ranking.probabilities.tolist(), strict=True
    ):
        add(item_id=item_id(index), score=score, probability=None if ranking.approximate else probability)
    if ranking.approximate and shadow is not None:
        shadow.offer(snapshot, ranking, (clicks, query.top_k, excluded, None, query.include_seen))
    if (stages := ranking.stages) is not None:
        reply.timing.encode_ns = stages.encode_ns
        reply.timing.score_ns = stages.score_ns
        reply.timing.select_ns = stages.select_ns
    reply.timing.model_ns = time.perf_counter_ns() - started
    return reply


def _unknown(item_ids: Iterable[str], indices: npt.NDArray[np.int64] | None) -> dict[str, None]:
    """Ids without an index, each once, in order."""
    if indices is None or not (indices == UNKNOWN).any():
        return {}
    return {item_id: None for item_id, index in zip(item_ids, indices.tolist(), strict=True) if index == UNKNOWN}
