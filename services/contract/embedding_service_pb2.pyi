import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from . import item_pb2 as _item_pb2
from . import timing_pb2 as _timing_pb2
from . import vector_pb2 as _vector_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ChangeType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHANGE_TYPE_UNSPECIFIED: _ClassVar[ChangeType]
    CHANGE_TYPE_UPSERTED: _ClassVar[ChangeType]
    CHANGE_TYPE_DELETED: _ClassVar[ChangeType]
CHANGE_TYPE_UNSPECIFIED: ChangeType
CHANGE_TYPE_UPSERTED: ChangeType
CHANGE_TYPE_DELETED: ChangeType

class EmbedItemRequest(_message.Message):
    __slots__ = ("item", "return_vector")
    ITEM_FIELD_NUMBER: _ClassVar[int]
    RETURN_VECTOR_FIELD_NUMBER: _ClassVar[int]
    item: _item_pb2.Item
    return_vector: bool
    def __init__(self, item: _Optional[_Union[_item_pb2.Item, _Mapping]] = ..., return_vector: bool = ...) -> None: ...

class EmbedItemResponse(_message.Message):
    __slots__ = ("item_id", "model_version", "sequence", "cached", "vector", "timing")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    model_version: str
    sequence: int
    cached: bool
    vector: _vector_pb2.Vector
    timing: _timing_pb2.Timing
    def __init__(self, item_id: _Optional[str] = ..., model_version: _Optional[str] = ..., sequence: _Optional[int] = ..., cached: bool = ..., vector: _Optional[_Union[_vector_pb2.Vector, _Mapping]] = ..., timing: _Optional[_Union[_timing_pb2.Timing, _Mapping]] = ...) -> None: ...

class EmbedItemsRequest(_message.Message):
    __slots__ = ("item", "return_vector")
    ITEM_FIELD_NUMBER: _ClassVar[int]
    RETURN_VECTOR_FIELD_NUMBER: _ClassVar[int]
    item: _item_pb2.Item
    return_vector: bool
    def __init__(self, item: _Optional[_Union[_item_pb2.Item, _Mapping]] = ..., return_vector: bool = ...) -> None: ...

class EmbedItemsResponse(_message.Message):
    __slots__ = ("index", "embedded", "failure")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    EMBEDDED_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    index: int
    embedded: EmbedItemResponse
    failure: EmbedItemsFailure
    def __init__(self, index: _Optional[int] = ..., embedded: _Optional[_Union[EmbedItemResponse, _Mapping]] = ..., failure: _Optional[_Union[EmbedItemsFailure, _Mapping]] = ...) -> None: ...

class EmbedItemsFailure(_message.Message):
    __slots__ = ("item_id", "code", "message", "field")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    code: int
    message: str
    field: str
    def __init__(self, item_id: _Optional[str] = ..., code: _Optional[int] = ..., message: _Optional[str] = ..., field: _Optional[str] = ...) -> None: ...

class GetItemRequest(_message.Message):
    __slots__ = ("item_id", "return_vector")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    RETURN_VECTOR_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    return_vector: bool
    def __init__(self, item_id: _Optional[str] = ..., return_vector: bool = ...) -> None: ...

class GetItemResponse(_message.Message):
    __slots__ = ("item", "model_version", "sequence", "vector", "updated_at")
    ITEM_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    item: _item_pb2.Item
    model_version: str
    sequence: int
    vector: _vector_pb2.Vector
    updated_at: _timestamp_pb2.Timestamp
    def __init__(self, item: _Optional[_Union[_item_pb2.Item, _Mapping]] = ..., model_version: _Optional[str] = ..., sequence: _Optional[int] = ..., vector: _Optional[_Union[_vector_pb2.Vector, _Mapping]] = ..., updated_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class DeleteItemRequest(_message.Message):
    __slots__ = ("item_id",)
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    def __init__(self, item_id: _Optional[str] = ...) -> None: ...

class DeleteItemResponse(_message.Message):
    __slots__ = ("item_id", "sequence", "existed", "timing")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    EXISTED_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    sequence: int
    existed: bool
    timing: _timing_pb2.Timing
    def __init__(self, item_id: _Optional[str] = ..., sequence: _Optional[int] = ..., existed: bool = ..., timing: _Optional[_Union[_timing_pb2.Timing, _Mapping]] = ...) -> None: ...

class WatchChangesRequest(_message.Message):
    __slots__ = ("after_sequence", "store_epoch", "return_vector")
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    STORE_EPOCH_FIELD_NUMBER: _ClassVar[int]
    RETURN_VECTOR_FIELD_NUMBER: _ClassVar[int]
    after_sequence: int
    store_epoch: str
    return_vector: bool
    def __init__(self, after_sequence: _Optional[int] = ..., store_epoch: _Optional[str] = ..., return_vector: bool = ...) -> None: ...

class WatchChangesResponse(_message.Message):
    __slots__ = ("sequence", "item_id", "type", "model_version", "vector", "head_sequence")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    HEAD_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    item_id: str
    type: ChangeType
    model_version: str
    vector: _vector_pb2.Vector
    head_sequence: int
    def __init__(self, sequence: _Optional[int] = ..., item_id: _Optional[str] = ..., type: _Optional[_Union[ChangeType, str]] = ..., model_version: _Optional[str] = ..., vector: _Optional[_Union[_vector_pb2.Vector, _Mapping]] = ..., head_sequence: _Optional[int] = ...) -> None: ...

class EmbeddingServiceGetInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class EmbeddingServiceGetInfoResponse(_message.Message):
    __slots__ = ("server_version", "model_version", "engine", "dimensions", "store_epoch", "sequence", "items", "vectors", "limits")
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    STORE_EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    server_version: str
    model_version: str
    engine: str
    dimensions: int
    store_epoch: str
    sequence: int
    items: int
    vectors: int
    limits: EmbeddingLimits
    def __init__(self, server_version: _Optional[str] = ..., model_version: _Optional[str] = ..., engine: _Optional[str] = ..., dimensions: _Optional[int] = ..., store_epoch: _Optional[str] = ..., sequence: _Optional[int] = ..., items: _Optional[int] = ..., vectors: _Optional[int] = ..., limits: _Optional[_Union[EmbeddingLimits, _Mapping]] = ...) -> None: ...

class EmbeddingLimits(_message.Message):
    __slots__ = ("max_text_bytes", "max_item_id_bytes", "max_message_bytes", "max_queued_texts", "max_stream_items")
    MAX_TEXT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_ITEM_ID_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUED_TEXTS_FIELD_NUMBER: _ClassVar[int]
    MAX_STREAM_ITEMS_FIELD_NUMBER: _ClassVar[int]
    max_text_bytes: int
    max_item_id_bytes: int
    max_message_bytes: int
    max_queued_texts: int
    max_stream_items: int
    def __init__(self, max_text_bytes: _Optional[int] = ..., max_item_id_bytes: _Optional[int] = ..., max_message_bytes: _Optional[int] = ..., max_queued_texts: _Optional[int] = ..., max_stream_items: _Optional[int] = ...) -> None: ...
