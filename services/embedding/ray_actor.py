"""What a Ray actor does: load the language model once, read one file of texts after another."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from llmgr_core.errors import ArtefactError
from llmgr_core.run_directory import RunDirectory
from llmgr_core.settings.engine import EngineSettings
from llmgr_core.store.item_encoder import ItemEncoder
from llmgr_core.store.records import text_hash
from services.embedding.loading import encoder_from_run

if TYPE_CHECKING:
    import pyarrow as pa

ATTEMPT, FINISHED = "attempt", "finished"


@dataclass(frozen=True)
class ReaderStart:
    """What an actor is started with; plain values, since Ray carries them to another process.

    Attributes:
        run: directory of the run.
        engine: section [engine].
        untuned: whether to read with the base model as it came.
        fingerprint: of the encoder that has to come out of it.
        threads: of torch; 0 leaves its own choice.
    """

    run: str
    engine: dict[str, Any]
    untuned: bool
    fingerprint: str
    threads: int


class TextReader:
    """An actor; see ReaderStart for what it is started with.

    Raises:
        LlmgrError: the encoder cannot be loaded here, or is another one.
    """

    def __init__(self, run: str, engine: dict[str, Any], untuned: bool, fingerprint: str, threads: int) -> None:
        if threads:
            import torch

            torch.set_num_threads(threads)
        self._encoder = encoder_from_run(RunDirectory(Path(run)), EngineSettings.model_validate(engine), untuned=untuned)
        if self._encoder.fingerprint != fingerprint:
            raise ArtefactError(
                f"{socket.gethostname()} has encoder {self._encoder.fingerprint[:12]}, the store's writer {fingerprint[:12]}: "
                "another base model, run or version of this program"
            )

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Read files.

        Args:
            batch: column ``file``, paths of files that ``ray_reading.write_texts`` wrote.

        Returns:
            Columns ``key``, the hash of each text, and ``vector``, its float16 [D] as bytes, or null.
        """
        import pyarrow as pa

        done = [one for file in batch["file"].to_pylist() for one in read_file(self._encoder, Path(file))]
        keys = pa.array([text_hash(text) for text, _ in done], pa.binary())
        return pa.table({"key": keys, "vector": pa.array([_bytes(vector) for _, vector in done], pa.binary())})


def read_file(encoder: ItemEncoder, file: Path) -> Iterator[tuple[str, npt.NDArray[np.float16] | None]]:
    """The texts of a file with their vectors float16 [D]; None for one without a usable vector, or that an actor died of."""
    import pyarrow.parquet as pq

    with closing(Attempts(file.with_suffix(".attempts"))) as attempts:
        for place, texts in enumerate(pq.read_table(file)["texts"].to_pylist()):
            if not attempts.died_at(str(place)):
                attempts.begin(str(place))
                yield from zip(texts, encoder.encode(texts), strict=True)
                continue
            for number, text in enumerate(texts):
                name = f"{place} {number}"
                if attempts.died_at(name):
                    yield text, None
                else:
                    attempts.begin(name)
                    yield text, encoder.encode([text])[0]
        attempts.begin(FINISHED)


class Attempts:
    """What a file's readers began, kept beside it, so that the next one knows where the last one died.

    Ray gives the file of an actor that died to another one, again and again. Texts during which one died are read one by one
    then, and a single text during which one died is not read again.
    """

    def __init__(self, path: Path) -> None:
        begun = path.read_text("utf-8").splitlines() if path.is_file() else []
        self._died = {last for last, after in pairwise([*begun, ATTEMPT]) if after == ATTEMPT}
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self.begin(ATTEMPT)

    def begin(self, name: str) -> None:
        self._file.write(name + "\n")

    def close(self) -> None:
        self._file.close()

    def died_at(self, name: str) -> bool:
        return name in self._died


def _bytes(vector: npt.NDArray[np.float16] | None) -> bytes | None:
    return None if vector is None else vector.tobytes()
