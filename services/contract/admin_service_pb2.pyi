from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: ProcessStatus
    def __init__(self, status: _Optional[_Union[ProcessStatus, _Mapping]] = ...) -> None: ...

class ReloadBundleRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReloadBundleResponse(_message.Message):
    __slots__ = ("exchanged", "status")
    EXCHANGED_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    exchanged: bool
    status: ProcessStatus
    def __init__(self, exchanged: bool = ..., status: _Optional[_Union[ProcessStatus, _Mapping]] = ...) -> None: ...

class RollbackBundleRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RollbackBundleResponse(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: ProcessStatus
    def __init__(self, status: _Optional[_Union[ProcessStatus, _Mapping]] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("resume",)
    RESUME_FIELD_NUMBER: _ClassVar[int]
    resume: bool
    def __init__(self, resume: bool = ...) -> None: ...

class DrainResponse(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: ProcessStatus
    def __init__(self, status: _Optional[_Union[ProcessStatus, _Mapping]] = ...) -> None: ...

class ProcessStatus(_message.Message):
    __slots__ = ("server_version", "pid", "model_version", "previous_model_version", "sequence", "items", "draining")
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    server_version: str
    pid: int
    model_version: str
    previous_model_version: str
    sequence: int
    items: int
    draining: bool
    def __init__(self, server_version: _Optional[str] = ..., pid: _Optional[int] = ..., model_version: _Optional[str] = ..., previous_model_version: _Optional[str] = ..., sequence: _Optional[int] = ..., items: _Optional[int] = ..., draining: bool = ...) -> None: ...
