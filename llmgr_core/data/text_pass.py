"""Cleaning the texts of a whole catalogue."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING

from llmgr_core.data.item import Item
from llmgr_core.data.item_table import item_from_row
from llmgr_core.progress import Reporter
from llmgr_core.settings.text import TextSettings

if TYPE_CHECKING:
    from llmgr_core.text import TextCleaner

ITEMS_WORTH_PROCESSES = 50_000

_cleaner: TextCleaner | None = None


def read_items(catalogue: Path, batch_rows: int = 2048) -> Iterator[Item]:
    """Items of a catalogue file in order, some thousands in memory at a time."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(catalogue) as file:
        for batch in file.iter_batches(batch_size=batch_rows, use_threads=False):
            yield from map(item_from_row, batch.to_pylist())


def read_texts(texts: Path, batch_rows: int = 2048) -> Iterator[str | None]:
    """Cleaned texts of a data set in the order of its items, some thousands in memory at a time."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(texts) as file:
        for batch in file.iter_batches(batch_size=batch_rows, use_threads=False):
            yield from batch.column(0).to_pylist()


def clean_texts(directory: Path, checkpoints: Path, settings: TextSettings, workers: int, reporter: Reporter) -> None:
    """Fit the cleaner on ``items.parquet`` and write ``texts.parquet`` and ``text_cleaner.json``.

    Args:
        directory: the data set, with its items already written.
        checkpoints: holds the fitted cleaner and one file for each cleaned row group, so that a run that was cut off goes on.
        settings: section [text].
        workers: processes; 0: one for each CPU core.
        reporter: progress.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    catalogue = directory / "items.parquet"
    with pq.ParquetFile(catalogue) as file:
        sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    parts = checkpoints / "texts"
    parts.mkdir(exist_ok=True)
    state_file = checkpoints / "text_cleaner.json"
    if not state_file.is_file():
        _fit(catalogue, sum(sizes), settings, state_file, reporter)
    missing = [number for number in range(len(sizes)) if not _part(parts, number).is_file()]
    with reporter.bar("cleaning texts", sum(sizes)) as advance:
        advance(sum(sizes) - sum(sizes[number] for number in missing))
        for number in _clean_groups(catalogue, missing, parts, state_file, _processes(workers, sum(sizes))):
            advance(sizes[number])
    with pq.ParquetWriter(directory / "texts.parquet", pa.schema([("text", pa.string())]), compression="zstd") as writer:
        for number in range(len(sizes)):
            writer.write_table(pq.read_table(_part(parts, number)))
    (directory / "text_cleaner.json").write_bytes(state_file.read_bytes())


def _fit(catalogue: Path, total: int, settings: TextSettings, state_file: Path, reporter: Reporter) -> None:
    from llmgr_core.text import TextCleaner

    with reporter.bar("reading texts for repeated sentences", total) as advance:

        def counted(items: Iterable[Item]) -> Iterator[Item]:
            for number, item in enumerate(items, start=1):
                yield item
                if number % 1000 == 0 or number == total:
                    advance(number % 1000 or 1000)

        cleaner = TextCleaner(settings).knowing(lambda: read_items(catalogue)).fit(counted(read_items(catalogue)))
    unfinished = state_file.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(cleaner.state(), ensure_ascii=False) + "\n", encoding="utf-8")
    unfinished.replace(state_file)


def _processes(workers: int, num_items: int) -> int:
    if num_items < ITEMS_WORTH_PROCESSES:
        return 1
    return workers or len(os.sched_getaffinity(0))


def _clean_groups(catalogue: Path, groups: list[int], parts: Path, state_file: Path, processes: int) -> Iterator[int]:
    """Clean row groups, in any order; yields each one's number when its file is in place."""
    if processes == 1 or len(groups) < 2:
        _start_worker(state_file)
        for number in groups:
            yield _clean_group(catalogue, number, parts)
        return
    # spawn: a forked child would inherit Arrow's threads half alive
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(processes, len(groups)), context, _start_worker_process, (state_file,))
    try:
        for done in as_completed([pool.submit(_clean_group, catalogue, number, parts) for number in groups]):
            yield done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker_process(state_file: Path) -> None:
    # an interrupt is the parent's to handle
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _start_worker(state_file)


def _end_with_parent() -> None:
    """Where the parent was killed, a worker would wait for ever, or write beside those of the run that goes on from there."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _start_worker(state_file: Path) -> None:
    from llmgr_core.text import TextCleaner

    global _cleaner  # noqa: PLW0603 - one cleaner a process, set once by its initializer
    _cleaner = TextCleaner.from_state(json.loads(state_file.read_text(encoding="utf-8")))


def _clean_group(catalogue: Path, number: int, parts: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    assert _cleaner is not None
    with pq.ParquetFile(catalogue) as file:
        rows = file.read_row_group(number, use_threads=False).to_pylist()
    texts = [_cleaner.clean(item_from_row(row)) for row in rows]
    part = _part(parts, number)
    unfinished = part.with_suffix(".unfinished")
    pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), unfinished)
    unfinished.replace(part)
    return number


def _part(parts: Path, number: int) -> Path:
    return parts / f"{number:06d}.parquet"
