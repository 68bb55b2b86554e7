"""The arguments of the clients' methods as messages of the contract."""

from __future__ import annotations

from collections.abc import Sequence

from llmgr_core.errors import InputError
from services.contract import ranking_service_pb2 as ranking


def rank_request(
    item_ids: Sequence[str],
    *,
    top_k: int = 0,
    candidate_ids: Sequence[str] = (),
    exclude_item_ids: Sequence[str] = (),
    include_seen: bool | None = None,
    min_sequence: int = 0,
) -> ranking.RankSessionRequest:
    """See RankingClient.rank.

    Raises:
        InputError: an argument is none that the contract can carry.
    """
    for name, ids in (("item_ids", item_ids), ("candidate_ids", candidate_ids), ("exclude_item_ids", exclude_item_ids)):
        if isinstance(ids, str):
            # Its characters would travel as ids, all unknown, and popularity would come back.
            raise InputError(f"{name} is the text {ids!r}, not a sequence of ids", f"write [{ids!r}]")
    try:
        return ranking.RankSessionRequest(
            item_ids=item_ids,
            top_k=top_k,
            candidate_ids=candidate_ids,
            exclude_item_ids=exclude_item_ids,
            include_seen=include_seen,  # type: ignore[arg-type]  # None leaves it unset
            min_sequence=min_sequence,
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"the request cannot be sent: {error}", "ids are texts, numbers not negative") from None


def rank_many_request(
    sessions: Sequence[Sequence[str]], *, top_k: int = 0, include_seen: bool | None = None, min_sequence: int = 0
) -> ranking.RankSessionsRequest:
    """See RankingClient.rank_many."""
    requests = [rank_request(one, top_k=top_k, include_seen=include_seen, min_sequence=min_sequence) for one in sessions]
    return ranking.RankSessionsRequest(sessions=requests)
