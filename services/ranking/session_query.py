"""What a RankSession request asks for, after every rule of the contract was checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmgr_core.settings.serve import ServeSettings
from services.contract import ranking_service_pb2
from services.server.errors import invalid_field

MAX_ITEM_ID_BYTES = 512
LONGEST_UTF8 = 4


@dataclass(frozen=True)
class SessionQuery:
    """A checked request.

    Attributes:
        clicks: item ids in click order, duplicates allowed; may be empty.
        top_k: how many items, at least 1.
        candidates: the only items to rank; None for the whole catalogue.
        excluded: never to be ranked.
        include_seen: None leaves it to the bundle.
        min_sequence: 0 does not wait.
    """

    clicks: Sequence[str]
    top_k: int
    candidates: Sequence[str] | None
    excluded: Sequence[str]
    include_seen: bool | None
    min_sequence: int

    @classmethod
    def checked(cls, request: ranking_service_pb2.RankSessionRequest, limits: ServeSettings, where: str = "") -> SessionQuery:
        """Check a message.

        Args:
            where: what stands before a field's name in an error, for example "sessions[3].".

        Raises:
            RequestError: INVALID_ARGUMENT, naming the field.
        """
        if request.top_k > limits.max_top_k:
            raise invalid_field(where + "top_k", f"{request.top_k} is more than {limits.max_top_k}")
        _check_ids(request.item_ids, where + "item_ids", limits.max_session_items)
        _check_ids(request.candidate_ids, where + "candidate_ids", limits.max_candidates)
        _check_ids(request.exclude_item_ids, where + "exclude_item_ids", limits.max_excluded)
        return cls(
            clicks=request.item_ids,
            top_k=request.top_k or limits.default_top_k,
            candidates=request.candidate_ids or None,
            excluded=request.exclude_item_ids,
            include_seen=request.include_seen if request.HasField("include_seen") else None,
            min_sequence=request.min_sequence,
        )


def _check_ids(item_ids: Sequence[str], field: str, most: int) -> None:
    if len(item_ids) > most:
        raise invalid_field(field, f"{len(item_ids)} ids are more than {most}")
    for number, item_id in enumerate(item_ids):
        if not item_id:
            raise invalid_field(f"{field}[{number}]", "an item id must not be empty")
        if "\0" in item_id:
            raise invalid_field(f"{field}[{number}]", "an item id must not hold a NUL character")
        if len(item_id) * LONGEST_UTF8 > MAX_ITEM_ID_BYTES and len(item_id.encode()) > MAX_ITEM_ID_BYTES:
            raise invalid_field(f"{field}[{number}]", f"an item id has at most {MAX_ITEM_ID_BYTES} bytes of UTF-8")
