"""Reading JSON lines, CSV, Parquet and RecBole files into one columnar form, and keeping account of bad rows."""

from llmgr_core.data.readers.bad_rows import BadRow, BadRows
from llmgr_core.data.readers.open_source import open_source
from llmgr_core.data.readers.record_batches import RecordBatch, record_batches

__all__ = ["BadRow", "BadRows", "RecordBatch", "open_source", "record_batches"]
