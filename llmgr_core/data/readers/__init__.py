"""Reading JSON lines, CSV, Parquet and RecBole files into one columnar form, and keeping account of bad rows."""

from llmgr_core.data.readers.bad_rows import BadRow, BadRows
from llmgr_core.data.readers.batches import RecordBatch, record_batches
from llmgr_core.data.readers.opening import open_source

__all__ = ["BadRow", "BadRows", "RecordBatch", "open_source", "record_batches"]
