"""Reading the texts of a catalogue with many language models at a time, over Ray Data.

The process that was started writes the store, and nobody else does. It puts the texts into files under the run directory, some
hundred in each; actors of Ray, each with a language model, take one file after the other and give back vectors, which are
written as they come. Nothing but names of files and vectors passes through Ray.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from llmgr_core.errors import LlmgrError
from llmgr_core.progress import Reporter
from llmgr_core.run_directory import RunDirectory
from llmgr_core.settings import Settings
from llmgr_core.store import StoreWriter
from llmgr_core.store.catalogue import PART_TEXTS
from llmgr_core.store.item_encoder import ItemEncoder
from llmgr_core.store.vector_intake import VectorIntake
from services.embedding.ray_actor import ReaderStart, TextReader
from services.embedding.ray_cluster import ActorPlan

if TYPE_CHECKING:
    from ray.data import Dataset

# Files for each actor at least, so that none waits long for the last one; vectors of one file at most, in bytes.
FILES_PER_ACTOR = 16
FILE_TEXTS = 4096
FILE_VECTOR_BYTES = 4 << 20
# One file is read while the next one's name waits beside it.
FILES_UNDER_WAY = 2


@dataclass(frozen=True)
class EncoderWithoutModel(ItemEncoder):
    """An encoder whose texts were read elsewhere: one that still has no vector has none."""

    @classmethod
    def of(cls, encoder: ItemEncoder) -> EncoderWithoutModel:
        return cls(**{one.name: getattr(encoder, one.name) for one in fields(encoder) if one.name != "model"}, model=_NoModel())

    def encode(self, texts: list[str]) -> list[npt.NDArray[np.float16] | None]:
        return [None for _ in texts]


class _NoModel:
    def embed_texts(self, texts: list[str]) -> npt.NDArray[np.float32]:
        raise AssertionError(f"{len(texts)} texts for a language model that is elsewhere")


class RayReading:
    """Gives texts their vectors in the store, on a Ray cluster that was joined before.

    Args:
        run: every node sees it at this path.
        settings: sections [engine] and [embed].
        encoder: who it is; the actors load it themselves, and have to come to the same fingerprint.
        plan: of the actors.
        reporter: gets the progress.
        untuned: whether to read with the base model as it came.
    """

    def __init__(
        self,
        run: RunDirectory,
        settings: Settings,
        encoder: ItemEncoder,
        plan: ActorPlan,
        reporter: Reporter,
        *,
        untuned: bool = False,
    ) -> None:
        self._encoder, self._plan, self._reporter = encoder, plan, reporter
        self._commit_texts = settings.embed.commit_texts
        self._run = run.root.resolve()
        engine = settings.engine.model_copy(update={"device": plan.device})
        self._start = ReaderStart(str(self._run), engine.model_dump(), untuned, encoder.fingerprint, plan.threads)

    def read(self, parts: Iterable[list[str]], most_texts: int, store: StoreWriter, lost: Mapping[bytes, str]) -> VectorIntake:
        """Read.

        Args:
            parts: texts that go to a language model together.
            most_texts: how many there may be.
            store: opened for writing.
            lost: see ``CatalogueEmbedding.lost``; looked at when ``parts`` has come to its end.

        Returns:
            What came of it, all of it written.

        Raises:
            LlmgrError: no actor can load the encoder, or Ray broke; what was read is in the store.
            StoreFullError: no space left; what was written before is kept.
        """
        intake = VectorIntake(store, self._encoder.fingerprint, self._commit_texts, lost)
        # Of this store alone, whose lock is held: what is there is of a run that was killed.
        directory = self._run / f"texts-{hashlib.sha256(str(store.path.resolve()).encode()).hexdigest()[:12]}.partial"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        try:
            files, texts = write_texts(parts, self._parts_per_file(most_texts), directory)
            if files:
                self._read_files(files, texts, intake)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        return intake

    def _parts_per_file(self, most_texts: int) -> int:
        balanced = most_texts // (self._plan.actors * FILES_PER_ACTOR)
        fitting = min(FILE_TEXTS, FILE_VECTOR_BYTES // (2 * self._encoder.dimensions))
        return max(1, min(balanced, fitting) // PART_TEXTS)

    def _read_files(self, files: list[str], texts: int, intake: VectorIntake) -> None:
        started = time.monotonic()
        with self._reporter.bar(f"embed on {self._plan.actors} actors", texts) as advance:
            try:
                for keys, vectors in self._vectors(files):
                    for key, vector in zip(keys, vectors, strict=True):
                        intake.take(key, None if vector is None else np.frombuffer(vector, dtype=np.float16))
                    advance(len(keys), texts_per_s=intake.texts / max(time.monotonic() - started, 1e-9))
            finally:
                intake.commit()

    def _vectors(self, files: list[str]) -> Iterator[tuple[list[bytes], list[bytes | None]]]:
        """Hashes of texts with their vectors, a file's at a time, in the order in which they are done."""
        import ray

        try:
            batches: Iterable[Any] = _dataset(files, self._start, self._plan).iter_batches(
                batch_size=None, batch_format="pyarrow"
            )
            for batch in batches:
                yield batch["key"].to_pylist(), batch["vector"].to_pylist()
        except ray.exceptions.RayError as error:
            raise LlmgrError(
                f"Ray broke off: {_reason(error)}",
                "what was read is in the store; run the command again to go on. Every node needs this program, the run's "
                "directory and the base model at the same paths",
            ) from error


def write_texts(parts: Iterable[list[str]], parts_per_file: int, directory: Path) -> tuple[list[str], int]:
    """Put texts into Parquet files, a part in each row of column ``texts``.

    Returns:
        Paths of the files, and how many texts are in them.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    files: list[str] = []
    texts, rest = 0, iter(parts)
    while rows := list(islice(rest, parts_per_file)):
        path = directory / f"{len(files):06d}.parquet"
        pq.write_table(pa.table({"texts": pa.array(rows, pa.list_(pa.string()))}), path, compression="zstd")
        files.append(str(path))
        texts += sum(map(len, rows))
    return files, texts


def _dataset(files: list[str], start: ReaderStart, plan: ActorPlan) -> Dataset:
    """The files, and the actors that read them."""
    from ray.data import ActorPoolStrategy, DataContext, from_items

    context = DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    # What stops the run is raised; Ray logs it, and its own traceback, besides.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    resources: dict[str, Any] = {"num_gpus": plan.gpus} if plan.gpus else {}
    return from_items([{"file": file} for file in files], override_num_blocks=len(files)).map_batches(
        TextReader,
        fn_constructor_kwargs=asdict(start),
        batch_size=None,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=plan.actors, max_tasks_in_flight_per_actor=FILES_UNDER_WAY),
        num_cpus=plan.cpus,
        **resources,
    )


def _reason(error: Exception) -> str:
    """The last line of an actor's traceback that says something: the error itself, without the hint below it."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    said = [line for line in lines if line and not line.startswith("hint:")]
    return said[-1] if said else type(error).__name__
