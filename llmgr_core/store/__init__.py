"""The embedding store: item vectors, items and a change log in LMDB, for one writer and many readers.

Imports only lmdb and NumPy, so that a ranking host can use it.
"""

from llmgr_core.store.errors import StoreDamagedError, StoreError, StoreFullError, StoreLockedError, VectorError
from llmgr_core.store.metadata import Encoder
from llmgr_core.store.operations import Delete, EmbeddedText, Put, Written
from llmgr_core.store.reading import EmbeddingStore
from llmgr_core.store.records import Change, ItemRecord, Operation, fingerprint_key, text_hash
from llmgr_core.store.states import Damage, Snapshot, Update, Updates
from llmgr_core.store.writing import StoreWriter

__all__ = [
    "Change",
    "Damage",
    "Delete",
    "EmbeddedText",
    "EmbeddingStore",
    "Encoder",
    "ItemRecord",
    "Operation",
    "Put",
    "Snapshot",
    "StoreDamagedError",
    "StoreError",
    "StoreFullError",
    "StoreLockedError",
    "StoreWriter",
    "Update",
    "Updates",
    "VectorError",
    "Written",
    "fingerprint_key",
    "text_hash",
]
