"""What the client's methods return."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llmgr_core.data.item import Item


@dataclass(frozen=True)
class Timing:
    """Where the server's time went, in milliseconds; encoding, scoring and selecting are parts of a ranking's ``model_ms``."""

    total_ms: float
    queue_ms: float
    model_ms: float
    store_ms: float
    encode_ms: float = 0.0
    score_ms: float = 0.0
    select_ms: float = 0.0


@dataclass(frozen=True)
class RankedItem:
    """An item of a ranking; ``probability`` is None where the server's search was approximate."""

    item_id: str
    score: float
    probability: float | None


@dataclass(frozen=True)
class RankedSession:
    """A ranking, best item first.

    Attributes:
        unknown_item_ids: ids of the session and of the candidates that the server does not know.
        model_version: version of the bundle that ranked.
        sequence: newest change of the store that the ranking knows of.
        fallback: no click could be used; the items stand by popularity.
    """

    items: tuple[RankedItem, ...]
    unknown_item_ids: tuple[str, ...]
    model_version: str
    sequence: int
    fallback: bool
    timing: Timing


@dataclass(frozen=True)
class RankingInfo:
    """What a ranking server is and accepts; see RankingServiceGetInfoResponse."""

    server_version: str
    model_version: str
    encoder_version: str
    items: int
    dimensions: int
    store_epoch: str
    sequence: int
    include_seen_default: bool
    limits: dict[str, int]


@dataclass(frozen=True)
class EmbeddedItem:
    """An item that is stored durably.

    Attributes:
        index: place in the stream it was sent in; 0 for a single call.
        cached: the language model did not run for it.
        vector: float32 [D], the stored half-precision numbers; None unless it was asked for.
    """

    item_id: str
    model_version: str
    sequence: int
    cached: bool
    timing: Timing
    vector: npt.NDArray[np.float32] | None = None
    index: int = 0


@dataclass(frozen=True)
class RejectedItem:
    """An item of a stream that was not stored; ``code`` is the name of a gRPC status."""

    index: int
    item_id: str
    code: str
    message: str
    field: str


@dataclass(frozen=True)
class StoredItem:
    """An item as it was last inserted; ``updated_at`` in seconds since 1970."""

    item: Item
    model_version: str
    sequence: int
    updated_at: float
    vector: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class DeletedItem:
    """A deletion that is stored durably."""

    item_id: str
    sequence: int
    existed: bool


@dataclass(frozen=True)
class Change:
    """One entry of the change log; ``deleted`` is False for an insert or a new text."""

    sequence: int
    item_id: str
    deleted: bool
    model_version: str
    head_sequence: int
    vector: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class EmbeddingInfo:
    """What an embedding server is and accepts; see EmbeddingServiceGetInfoResponse."""

    server_version: str
    model_version: str
    engine: str
    dimensions: int
    store_epoch: str
    sequence: int
    items: int
    vectors: int
    limits: dict[str, int]
