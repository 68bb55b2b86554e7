from . import timing_pb2 as _timing_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RankSessionRequest(_message.Message):
    __slots__ = ("item_ids", "top_k", "candidate_ids", "exclude_item_ids", "include_seen", "min_sequence")
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_IDS_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_SEEN_FIELD_NUMBER: _ClassVar[int]
    MIN_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    top_k: int
    candidate_ids: _containers.RepeatedScalarFieldContainer[str]
    exclude_item_ids: _containers.RepeatedScalarFieldContainer[str]
    include_seen: bool
    min_sequence: int
    def __init__(self, item_ids: _Optional[_Iterable[str]] = ..., top_k: _Optional[int] = ..., candidate_ids: _Optional[_Iterable[str]] = ..., exclude_item_ids: _Optional[_Iterable[str]] = ..., include_seen: bool = ..., min_sequence: _Optional[int] = ...) -> None: ...

class RankSessionResponse(_message.Message):
    __slots__ = ("items", "unknown_item_ids", "model_version", "sequence", "fallback", "timing")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[ScoredItem]
    unknown_item_ids: _containers.RepeatedScalarFieldContainer[str]
    model_version: str
    sequence: int
    fallback: bool
    timing: _timing_pb2.Timing
    def __init__(self, items: _Optional[_Iterable[_Union[ScoredItem, _Mapping]]] = ..., unknown_item_ids: _Optional[_Iterable[str]] = ..., model_version: _Optional[str] = ..., sequence: _Optional[int] = ..., fallback: bool = ..., timing: _Optional[_Union[_timing_pb2.Timing, _Mapping]] = ...) -> None: ...

class ScoredItem(_message.Message):
    __slots__ = ("item_id", "score", "probability")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    score: float
    probability: float
    def __init__(self, item_id: _Optional[str] = ..., score: _Optional[float] = ..., probability: _Optional[float] = ...) -> None: ...

class RankSessionsRequest(_message.Message):
    __slots__ = ("sessions",)
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    sessions: _containers.RepeatedCompositeFieldContainer[RankSessionRequest]
    def __init__(self, sessions: _Optional[_Iterable[_Union[RankSessionRequest, _Mapping]]] = ...) -> None: ...

class RankSessionsResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[RankSessionResponse]
    def __init__(self, results: _Optional[_Iterable[_Union[RankSessionResponse, _Mapping]]] = ...) -> None: ...

class RankingServiceGetInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RankingServiceGetInfoResponse(_message.Message):
    __slots__ = ("server_version", "model_version", "encoder_version", "items", "dimensions", "store_epoch", "sequence", "include_seen_default", "limits")
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ENCODER_VERSION_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    STORE_EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_SEEN_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    server_version: str
    model_version: str
    encoder_version: str
    items: int
    dimensions: int
    store_epoch: str
    sequence: int
    include_seen_default: bool
    limits: RankingLimits
    def __init__(self, server_version: _Optional[str] = ..., model_version: _Optional[str] = ..., encoder_version: _Optional[str] = ..., items: _Optional[int] = ..., dimensions: _Optional[int] = ..., store_epoch: _Optional[str] = ..., sequence: _Optional[int] = ..., include_seen_default: bool = ..., limits: _Optional[_Union[RankingLimits, _Mapping]] = ...) -> None: ...

class RankingLimits(_message.Message):
    __slots__ = ("max_top_k", "max_session_items", "max_candidates", "max_excluded", "max_sessions", "max_message_bytes", "max_encoded_clicks")
    MAX_TOP_K_FIELD_NUMBER: _ClassVar[int]
    MAX_SESSION_ITEMS_FIELD_NUMBER: _ClassVar[int]
    MAX_CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    MAX_EXCLUDED_FIELD_NUMBER: _ClassVar[int]
    MAX_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_ENCODED_CLICKS_FIELD_NUMBER: _ClassVar[int]
    max_top_k: int
    max_session_items: int
    max_candidates: int
    max_excluded: int
    max_sessions: int
    max_message_bytes: int
    max_encoded_clicks: int
    def __init__(self, max_top_k: _Optional[int] = ..., max_session_items: _Optional[int] = ..., max_candidates: _Optional[int] = ..., max_excluded: _Optional[int] = ..., max_sessions: _Optional[int] = ..., max_message_bytes: _Optional[int] = ..., max_encoded_clicks: _Optional[int] = ...) -> None: ...
