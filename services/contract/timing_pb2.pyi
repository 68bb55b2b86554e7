from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Timing(_message.Message):
    __slots__ = ("total_ns", "queue_ns", "model_ns", "store_ns", "encode_ns", "score_ns", "select_ns")
    TOTAL_NS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_NS_FIELD_NUMBER: _ClassVar[int]
    MODEL_NS_FIELD_NUMBER: _ClassVar[int]
    STORE_NS_FIELD_NUMBER: _ClassVar[int]
    ENCODE_NS_FIELD_NUMBER: _ClassVar[int]
    SCORE_NS_FIELD_NUMBER: _ClassVar[int]
    SELECT_NS_FIELD_NUMBER: _ClassVar[int]
    total_ns: int
    queue_ns: int
    model_ns: int
    store_ns: int
    encode_ns: int
    score_ns: int
    select_ns: int
    def __init__(self, total_ns: _Optional[int] = ..., queue_ns: _Optional[int] = ..., model_ns: _Optional[int] = ..., store_ns: _Optional[int] = ..., encode_ns: _Optional[int] = ..., score_ns: _Optional[int] = ..., select_ns: _Optional[int] = ...) -> None: ...
