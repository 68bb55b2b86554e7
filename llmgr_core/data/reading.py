"""Reading the input files: ids become numbers, and what the rows say of each other is checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llmgr_core.data.item_table import item_schema
from llmgr_core.data.raw_input import RawInput, RawInputWriter
from llmgr_core.data.readers import BadRow, BadRows, RecordBatch, open_source, record_batches
from llmgr_core.data.readers.fields import Record, find_columns, record_of_clicks
from llmgr_core.data.readers.source import Source
from llmgr_core.data.sources import Sources
from llmgr_core.data.vocabulary import Vocabulary
from llmgr_core.progress import Reporter
from llmgr_core.settings.data import DataSettings

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa


def read_input(sources: Sources, settings: DataSettings, path: Path, reporter: Reporter) -> RawInput:
    """Read everything into a directory of columns.

    Without an item file every id met is an item; with one, clicks on other ids are counted and left out.

    Args:
        sources: the input files.
        settings: fields, chunk size and what to do about bad rows.
        path: where the columns go.
        reporter: progress, and one event for each file that had bad rows.

    Raises:
        InputError: a file that cannot be used; see BadRows.
    """
    return _Reading(settings, path, reporter).read(sources)


def read_catalogue(path: Path, settings: DataSettings, target: Path, reporter: Reporter) -> int:
    """Read an item file alone into one Parquet file; returns how many items it holds.

    Raises:
        InputError: a file that cannot be used; see BadRows.
    """
    return _Reading(settings, target.parent, reporter).read_items(path, target)


class _Reading:
    def __init__(self, settings: DataSettings, path: Path, reporter: Reporter) -> None:
        self._settings, self._reporter = settings, reporter
        self._raw = RawInput(path)
        self._items = Vocabulary()
        self._closed = False
        self._accounts: dict[str, BadRows] = {}

    def read(self, sources: Sources) -> RawInput:
        with RawInputWriter(self._raw.path) as writer:
            if sources.items is not None:
                self.read_items(sources.items, self._raw.catalogue)
                self._closed = True
            has_times = self._read_sessions(sources.sessions, writer)
            if sources.test is not None:
                self._read_examples(sources.test, writer)
            if sources.items is None:
                self._write_bare_catalogue()
            return writer.finish(
                {
                    "num_items": len(self._items),
                    "has_times": has_times,
                    "has_test": sources.test is not None,
                    "has_texts": sources.items is not None,
                    "files": {role: account.summary() for role, account in self._accounts.items()},
                }
            )

    def read_items(self, path: Path, target: Path) -> int:
        import pyarrow.parquet as pq

        source = self._open("items", path)
        fields = find_columns(Record.ITEM, source.columns, self._settings.fields, path, may_have_more=source.may_have_more)
        with pq.ParquetWriter(target, item_schema(), compression="zstd") as writer:
            for batch in self._batches("items", source, Record.ITEM, fields):
                repeated = self._add_new(self._items, batch.table.column("item_id").combine_chunks())
                writer.write_table(batch.reject(repeated, BadRow.DUPLICATE_ID, self._accounts["items"]).table)
        return len(self._items)

    def _read_sessions(self, path: Path, writer: RawInputWriter) -> bool:
        source = self._open("sessions", path)
        record = record_of_clicks(source.columns, self._settings.fields)
        fields = find_columns(record, source.columns, self._settings.fields, path)
        batches = self._batches("sessions", source, record, fields)
        if record is Record.CLICK:
            self._take_clicks(batches, writer, "timestamp" in fields)
            return "timestamp" in fields
        self._take_sessions(batches, writer, "session_id" in fields, "timestamps" in fields)
        return "timestamps" in fields

    def _take_clicks(self, batches: Iterator[RecordBatch], writer: RawInputWriter, has_times: bool) -> None:
        account = self._accounts["sessions"]
        sessions = Vocabulary()
        for batch in batches:
            numbers = self._item_numbers(batch.table.column("item_id").combine_chunks())
            account.clicks += len(numbers)
            known = numbers >= 0
            batch.report(np.flatnonzero(~known), BadRow.UNKNOWN_ITEM, account)
            # every session gets its number, also one whose click is left out: numbers follow first appearance
            owners = sessions.encode(batch.table.column("session_id").combine_chunks())
            writer.append("owners", owners[known])
            writer.append("items", numbers[known])
            if has_times:
                writer.append("times", batch.table.column("timestamp").to_numpy()[known])

    def _take_sessions(self, batches: Iterator[RecordBatch], writer: RawInputWriter, has_ids: bool, has_times: bool) -> None:
        account = self._accounts["sessions"]
        sessions, count = Vocabulary(), 0
        for every in batches:
            batch = every
            if has_ids:
                repeated = self._add_new(sessions, batch.table.column("session_id").combine_chunks())
                batch = batch.reject(repeated, BadRow.DUPLICATE_ID, account)
            numbers, row, known = self._list_numbers(batch, account)
            writer.append("owners", (count + row[known]).astype(np.int32))
            writer.append("items", numbers[known])
            if has_times:
                writer.append("times", batch.table.column("timestamps").combine_chunks().flatten().to_numpy()[known])
            count += batch.table.num_rows

    def _read_examples(self, path: Path, writer: RawInputWriter) -> None:
        source = self._open("test", path)
        fields = find_columns(Record.EXAMPLE, source.columns, self._settings.fields, path)
        for every in self._batches("test", source, Record.EXAMPLE, fields):
            account = self._accounts["test"]
            targets = self._item_numbers(every.table.column("target").combine_chunks())
            account.clicks += len(targets)
            batch = every.reject(targets < 0, BadRow.UNKNOWN_ITEM, account)
            targets = targets[targets >= 0]
            numbers, row, known = self._list_numbers(batch, account)
            lengths = np.bincount(row[known], minlength=len(targets))
            batch.report(np.flatnonzero(lengths == 0), BadRow.EMPTY_SESSION, account)
            writer.append("test_items", numbers[known])
            writer.append("test_lengths", lengths[lengths > 0])
            writer.append("test_targets", targets[lengths > 0])

    def _batches(self, role: str, source: Source, record: Record, fields: dict[str, str]) -> Iterator[RecordBatch]:
        account = self._accounts[role]
        with self._reporter.bar(f"reading {source.path.name}", source.size) as advance:
            done = 0
            for batch in record_batches(source, record, fields, account):
                yield batch
                if source.position > done:
                    advance(source.position - done, rows=account.rows, bad=account.total)
                    done = source.position
            advance(source.position - done, rows=account.rows, bad=account.total)
        account.close()
        if account.total:
            self._reporter.event("bad rows", **account.summary())

    def _open(self, role: str, path: Path) -> Source:
        self._accounts[role] = BadRows(path, self._settings.bad_rows, self._settings.max_bad_share)
        return open_source(path, self._settings.chunk_bytes)

    def _item_numbers(self, ids: pa.Array) -> npt.NDArray[np.int32]:
        return self._items.find(ids) if self._closed else self._items.encode(ids)

    def _list_numbers(
        self, batch: RecordBatch, account: BadRows
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Of the ``items`` lists, flat: item numbers, row in the batch, and which are known; unknown ones are counted."""
        import pyarrow.compute as pc

        lists = batch.table.column("items").combine_chunks()
        lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
        row = np.repeat(np.arange(len(lists), dtype=np.int64), lengths)
        numbers = self._item_numbers(lists.flatten())
        known = numbers >= 0
        account.clicks += len(numbers)
        batch.report(row[~known], BadRow.UNKNOWN_ITEM, account)
        return numbers, row, known

    def _add_new(self, vocabulary: Vocabulary, ids: pa.Array) -> npt.NDArray[np.bool_]:
        """Add ids; bool [n], True where one has been there before."""
        before = len(vocabulary)
        numbers = vocabulary.encode(ids)
        first = np.zeros(len(numbers), dtype=np.bool_)
        first[np.unique(numbers, return_index=True)[1]] = True
        return ~(first & (numbers >= before))

    def _write_bare_catalogue(self, rows_at_a_time: int = 65536) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = item_schema()
        with pq.ParquetWriter(self._raw.catalogue, schema, compression="zstd") as writer:
            for start in range(0, len(self._items), rows_at_a_time):
                ids = self._items.values.slice(start, rows_at_a_time)
                empty: list[Any] = [pa.nulls(len(ids), field.type) for field in list(schema)[1:]]
                writer.write_table(pa.table([ids, *empty], schema=schema))
