"""What can go wrong with a store."""

from __future__ import annotations

from llmgr_core.errors import LlmgrError


class StoreError(LlmgrError):
    """A store that cannot be opened, or that does not fit what it is opened for."""


class StoreLockedError(StoreError):
    """Another process writes to the store.

    Attributes:
        address: host:port of the embedding server that holds it, or None where the holder is none.
    """

    def __init__(self, message: str, hint: str | None = None, address: str | None = None) -> None:
        super().__init__(message, hint)
        self.address = address


class StoreDamagedError(StoreError):
    """DATA_LOSS: the bytes of the file are not what was written, beyond single records that can be skipped."""


class StoreFullError(StoreError):
    """No space left on the disk: the write was not done, nothing written before is lost, the next write may succeed."""


class VectorError(StoreError):
    """Numbers that must not be stored: not finite, not representable in half precision, or of another dimension."""
