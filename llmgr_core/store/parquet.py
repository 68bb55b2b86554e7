"""A store as a directory of Parquet files, and back: for backups, other tools, and another machine's byte order.

    store.json                     format, epoch, encoders, active encoder, newest change, hash of every file
    items.parquet                  item_id, record (JSON), sequence, deleted, updated (UTC), encoder_keys, text_hashes
    changes.parquet                sequence, item_id, operation, encoder_key
    vectors-<fingerprint>.parquet  text_hash, vector (D half-precision numbers); one file an encoder

Everything that readers of a store can ask for comes back bit for bit. The imported store has an epoch of its own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llmgr_core.artefacts.manifest import hash_file
from llmgr_core.store import metadata
from llmgr_core.store.errors import StoreDamagedError, StoreError
from llmgr_core.store.metadata import Encoder
from llmgr_core.store.reading import EmbeddingStore
from llmgr_core.store.records import (
    Change,
    DamagedRecordError,
    ItemRecord,
    Operation,
    fingerprint_key,
    item_key,
    pack_change,
    pack_item,
    pack_vector,
    sequence_key,
    unpack_change,
    unpack_item_at,
    vector_payload,
)
from llmgr_core.store.row_blocks import put_rows
from llmgr_core.store.writing import StoreWriter

FORMAT = 1
BLOCK = 4096
FINGERPRINT_SHOWN = 12


@dataclass(frozen=True)
class TransferReport:
    """What was written: rows of each kind, and the newest change."""

    vectors: int
    items: int
    changes: int
    sequence: int


def export_store(path: Path, target: Path) -> TransferReport:
    """Write one state of a store, which may be in use, as a new directory.

    Raises:
        StoreDamagedError: a record is damaged; a backup that silently lacks it would be none.
        StoreError: no store, or the target is there already.
    """
    if target.exists():
        raise StoreError(f"{target} is there already", "export to a new directory")
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with EmbeddingStore.open(path) as store:
        report, description = _export(store, partial)
    description["files"] = {file.name: hash_file(file) for file in sorted(partial.iterdir())}
    (partial / "store.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    partial.rename(target)
    return report


def import_store(source: Path, path: Path) -> TransferReport:
    """Make a store from what export_store wrote; sequences and times are those of the exported one.

    Raises:
        StoreDamagedError: a file is not as it was written.
        StoreError: no export, or a store is there already.
    """
    if path.exists() and any(path.iterdir()):
        raise StoreError(f"{path} is there already", "import into a new directory, then put it in the old one's place")
    try:
        description = json.loads((source / "store.json").read_text(encoding="utf-8"))
        if description["format"] != FORMAT:
            raise StoreError(f"{source} has format {description['format']}; this program reads format {FORMAT}")
        encoders = [Encoder(**one) for one in description["encoders"]]
        for name, digest in description["files"].items():
            if hash_file(source / name) != digest:
                raise StoreDamagedError(
                    f"{source / name} is not as it was written (data loss)", "take another copy of the export"
                )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{source} is no export of a store: {error}", "`llmgr store export` makes one") from None
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    with StoreWriter.open(partial) as store:
        counts = {
            "vectors": sum(put_rows(store, "vectors", _vector_rows(source, one)) for one in encoders),
            "items": put_rows(store, "items", _item_rows(source)),
            "changes": put_rows(store, "changes", _change_rows(source)),
        }

        def describe(transaction: Any) -> None:
            meta = store.database("meta")
            for encoder in encoders:
                metadata.write_encoder(transaction, meta, encoder)
            if description["active"] is not None:
                metadata.write_active(transaction, meta, description["active"])
            metadata.write_pruned(transaction, meta, description["pruned"])
            metadata.write_live(transaction, meta, description["live"])

        store.transact(describe)
        sequence = store.sequence()
    if path.exists():
        path.rmdir()
    partial.rename(path)
    return TransferReport(**counts, sequence=sequence)


def _export(store: EmbeddingStore, directory: Path) -> tuple[TransferReport, dict[str, Any]]:
    pyarrow, _ = _parquet()
    key = pyarrow.binary(16)
    item_fields = {
        "item_id": pyarrow.string(),
        "record": pyarrow.binary(),
        "sequence": pyarrow.uint64(),
        "deleted": pyarrow.bool_(),
        "updated": pyarrow.timestamp("ns", tz="UTC"),
        "encoder_keys": pyarrow.list_(key),
        "text_hashes": pyarrow.list_(key),
    }
    change_fields = {
        "sequence": pyarrow.uint64(),
        "item_id": pyarrow.string(),
        "operation": pyarrow.string(),
        "encoder_key": key,
    }
    with store.transaction() as transaction:
        meta = store.database("meta")
        encoders = list(metadata.read_encoders(transaction, meta).values())
        vectors = sum(_export_vectors(store, transaction, directory, encoder) for encoder in encoders)
        if vectors != transaction.stat(store.database("vectors"))["entries"]:
            raise StoreDamagedError(f"{store.path} holds vectors of an encoder it does not know", "`llmgr store repair`")
        items = _write(directory / "items.parquet", item_fields, _sound(store, transaction, "items", _item_row))
        changes = _write(directory / "changes.parquet", change_fields, _sound(store, transaction, "changes", _change_row))
        description = {
            "format": FORMAT,
            "epoch": store.epoch,
            "encoders": [asdict(encoder) for encoder in encoders],
            "active": metadata.read_active(transaction, meta),
            "sequence": store.newest_in(transaction),
            "pruned": metadata.read_pruned(transaction, meta),
            "live": metadata.read_live(transaction, meta),
        }
    return TransferReport(vectors, items, changes, int(str(description["sequence"]))), description


def _export_vectors(store: EmbeddingStore, transaction: Any, directory: Path, encoder: Encoder) -> int:
    pyarrow, _ = _parquet()
    prefix = fingerprint_key(encoder.fingerprint)
    fields = {"text_hash": pyarrow.binary(16), "vector": pyarrow.list_(pyarrow.float16(), encoder.dimensions)}

    def rows() -> Iterator[tuple[Any, ...]]:
        for key, value in _sound(store, transaction, "vectors", lambda key, value: (bytes(key), vector_payload(value)), prefix):
            yield key[len(prefix) :], np.frombuffer(bytes(value), dtype="<f2")

    return _write(directory / _vectors_name(encoder), fields, rows())


def _sound(
    store: EmbeddingStore, transaction: Any, database: str, unpack: Callable[..., tuple[Any, ...]], prefix: bytes = b""
) -> Iterator[tuple[Any, ...]]:
    cursor = transaction.cursor(db=store.database(database))
    for key, value in cursor if cursor.set_range(prefix) else ():
        if not bytes(key).startswith(prefix):
            return
        try:
            row = unpack(key, value)
        except DamagedRecordError as error:
            raise StoreDamagedError(
                f"{store.path} holds a damaged record in {database}, {bytes(key).hex()}: {error}",
                "`llmgr store verify` names all of them, `llmgr store repair` takes them out",
            ) from None
        yield row


def _item_row(key: bytes, value: bytes) -> tuple[Any, ...]:
    item = unpack_item_at(key, value)
    keys = sorted(item.texts)
    texts = [item.texts[key] for key in keys]
    return item.item_id, item.record, item.sequence, item.deleted, item.updated_ns, keys, texts


def _change_row(key: bytes, value: bytes) -> tuple[Any, ...]:
    change = unpack_change(key, value)
    return change.sequence, change.item_id, change.operation.name, change.fingerprint_key


def _write(path: Path, fields: dict[str, Any], rows: Iterator[tuple[Any, ...]]) -> int:
    pyarrow, parquet = _parquet()
    schema = pyarrow.schema(list(fields.items()))
    count = 0
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        while block := [row for _, row in zip(range(BLOCK), rows, strict=False)]:
            count += len(block)
            columns = [
                _vector_column(column, kind) if pyarrow.types.is_fixed_size_list(kind) else pyarrow.array(column, kind)
                for column, kind in zip(zip(*block, strict=True), fields.values(), strict=True)
            ]
            writer.write_table(pyarrow.Table.from_arrays(columns, schema=schema))
    return count


def _vector_column(vectors: tuple[np.ndarray, ...], kind: Any) -> Any:
    pyarrow, _ = _parquet()
    return pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(np.concatenate(vectors).astype(np.float16)), kind.list_size)


def _vector_rows(source: Path, encoder: Encoder) -> Iterator[tuple[bytes, bytes]]:
    prefix = fingerprint_key(encoder.fingerprint)
    for batch in _batches(source / _vectors_name(encoder)):
        vectors = batch.column("vector").flatten().to_numpy(zero_copy_only=False).astype("<f2", copy=False)
        rows = vectors.reshape(-1, encoder.dimensions)
        for text, vector in zip(batch.column("text_hash").to_pylist(), rows, strict=True):
            yield prefix + text, pack_vector(vector)


def _item_rows(source: Path) -> Iterator[tuple[bytes, bytes]]:
    pyarrow, _ = _parquet()
    for batch in _batches(source / "items.parquet"):
        updated = batch.column("updated").cast(pyarrow.int64()).to_pylist()
        names = ("item_id", "record", "sequence", "deleted", "encoder_keys", "text_hashes")
        columns = zip(*(batch.column(name).to_pylist() for name in names), updated, strict=True)
        for item_id, record, sequence, deleted, keys, texts, nanoseconds in columns:
            item = ItemRecord(item_id, record, dict(zip(keys, texts, strict=True)), sequence, deleted, nanoseconds)
            yield item_key(item_id), pack_item(item)


def _change_rows(source: Path) -> Iterator[tuple[bytes, bytes]]:
    for batch in _batches(source / "changes.parquet"):
        names = ("sequence", "item_id", "operation", "encoder_key")
        for sequence, item_id, operation, key in zip(*(batch.column(name).to_pylist() for name in names), strict=True):
            yield sequence_key(sequence), pack_change(Change(sequence, item_id, Operation[operation], key))


def _batches(path: Path) -> Iterator[Any]:
    _, parquet = _parquet()
    with parquet.ParquetFile(path) as file:
        yield from file.iter_batches(BLOCK)


def _vectors_name(encoder: Encoder) -> str:
    return f"vectors-{encoder.fingerprint[:FINGERPRINT_SHOWN]}.parquet"


def _parquet() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise StoreError("export and import need pyarrow", "pip install 'llmgr[data]'") from None
    return pyarrow, pyarrow.parquet
