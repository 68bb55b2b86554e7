"""From a path to the reader of its format."""

from __future__ import annotations

from pathlib import Path

from llmgr_core.data.readers.delimited import Delimited
from llmgr_core.data.readers.json_lines import JsonLines
from llmgr_core.data.readers.parquet import Parquet
from llmgr_core.data.readers.source import Source
from llmgr_core.data.sources import file_format


def open_source(path: Path, chunk_bytes: int) -> Source:
    """Open an input file by the ending of its name.

    Args:
        path: the file.
        chunk_bytes: about how many bytes are held at a time.

    Raises:
        InputError: an unknown ending, or a file that is not what its ending says.
    """
    kind = file_format(path)
    if kind == "jsonl":
        return JsonLines(path, chunk_bytes)
    if kind == "parquet":
        return Parquet(path, chunk_bytes)
    return Delimited(path, chunk_bytes, kind)
