"""A prepared data set, opened from its artefact directory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from llmgr_core.artefacts import Artefact
from llmgr_core.data.item import Item
from llmgr_core.data.item_table import TextColumn, item_from_row
from llmgr_core.sessions import Examples, Sessions

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

EXAMPLE_SETS = ("validation", "test", "heldout_validation", "heldout")


@dataclass(frozen=True)
class Dataset:
    """Items, training sessions and evaluation examples of one prepared data set.

    Opening maps files and reads none of them; numbers are memory-mapped, texts are read when first asked for.
    Item index i is the row of the catalogue in the order of the item file.
    """

    artefact: Artefact

    @classmethod
    def open(cls, artefact: Artefact) -> Dataset:
        """Open a finished ``dataset`` artefact."""
        return cls(artefact)

    @property
    def digest(self) -> str:
        """Digest of the artefact: equal digests, equal data."""
        return self.artefact.digest

    @property
    def num_items(self) -> int:
        """V, items that can be clicked and ranked."""
        return len(self.train_counts)

    @cached_property
    def protocol(self) -> dict[str, Any]:
        """How the data was filtered and split; printed beside every result."""
        return self._json("protocol.json")

    @cached_property
    def fit_report(self) -> dict[str, Any]:
        """What `llmgr prepare` found out about the data's fit; see llmgr_core.data.fit_report."""
        return self._json("fit_report.json")

    @cached_property
    def cleaner_state(self) -> dict[str, Any]:
        """State of the TextCleaner that made ``texts``."""
        return self._json("text_cleaner.json")

    @property
    def include_seen(self) -> bool:
        """Whether items already in the session may be recommended, by default, on data of this kind."""
        return bool(self.protocol["include_seen"])

    @cached_property
    def item_ids(self) -> list[str]:
        """Item ids in index order."""
        ids: list[str] = self._id_column.to_pylist()
        return ids

    def item_index(self, ids: Sequence[str]) -> npt.NDArray[np.int32]:
        """int32 [n], the index of each id; -1 where the data set does not know it."""
        import pyarrow as pa
        import pyarrow.compute as pc

        found = pc.index_in(pa.array(ids, pa.string()), value_set=self._id_column)
        return np.asarray(found.fill_null(-1).to_numpy(zero_copy_only=False), dtype=np.int32)

    @cached_property
    def texts(self) -> Sequence[str | None]:
        """Cleaned text of each item, None where it has none."""
        return TextColumn(self._column("texts.parquet", "text"))

    @cached_property
    def titles(self) -> Sequence[str | None]:
        """Title of each item as its owner wrote it."""
        return TextColumn(self._column("items.parquet", "title"))

    def item(self, index: int) -> Item:
        """The original record of one item.

        Raises:
            IndexError: no such index.
        """
        if not 0 <= index < self.num_items:
            raise IndexError(f"item index {index} is not in 0..{self.num_items - 1}")
        file, starts = self._item_groups
        group = int(np.searchsorted(starts, index, side="right")) - 1
        row = file.read_row_group(group).slice(index - int(starts[group]), 1)
        return item_from_row(row.to_pylist()[0])

    @cached_property
    def brand_codes(self) -> npt.NDArray[np.int32]:
        """int32 [V], equal for items of one brand; -1: no brand."""
        return self._array("brand_codes.npy")

    @cached_property
    def category_codes(self) -> npt.NDArray[np.int32]:
        """int32 [V], equal for items whose first category path is the same; -1: no category."""
        return self._array("category_codes.npy")

    @cached_property
    def train_counts(self) -> npt.NDArray[np.int64]:
        """int64 [V], clicks of each item in the training sessions."""
        return self._array("train_counts.npy")

    @property
    def popularity(self) -> npt.NDArray[np.int64]:
        """int64 [V]; only training clicks count."""
        return self.train_counts

    @cached_property
    def heldout_items(self) -> npt.NDArray[np.bool_]:
        """bool [V], items never shown in training (all False unless data.heldout_share > 0)."""
        return self._array("heldout_items.npy")

    @cached_property
    def train(self) -> Sessions:
        """Training sessions."""
        return Sessions(self._array("train/items.npy"), self._array("train/offsets.npy"))

    @cached_property
    def train_sessions(self) -> npt.NDArray[np.int64]:
        """int64 [S], number of each training session, on the scale of ``Examples.sessions``."""
        return self._array("train/sessions.npy")

    @cached_property
    def validation(self) -> Examples:
        """Examples to choose settings by."""
        return self._examples("validation")

    @cached_property
    def test(self) -> Examples:
        """Examples to report."""
        return self._examples("test")

    @cached_property
    def heldout_validation(self) -> Examples:
        """Examples whose target is a held-out item of the validation half; prefixes hold only warm items."""
        return self._examples("heldout_validation")

    @cached_property
    def heldout(self) -> Examples:
        """Examples whose target is a held-out item of the test half; prefixes hold only warm items."""
        return self._examples("heldout")

    @cached_property
    def _id_column(self) -> pa.Array:
        return self._column("items.parquet", "item_id").combine_chunks()

    @cached_property
    def _item_groups(self) -> tuple[pq.ParquetFile, npt.NDArray[np.int64]]:
        import pyarrow.parquet as pq

        file = pq.ParquetFile(self.artefact.file("items.parquet"))
        rows = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
        return file, np.cumsum([0, *rows[:-1]], dtype=np.int64)

    def _column(self, file: str, name: str) -> pa.ChunkedArray:
        import pyarrow.parquet as pq

        return pq.read_table(self.artefact.file(file), columns=[name]).column(0)

    def _array(self, name: str) -> npt.NDArray[Any]:
        path = self.artefact.file(name)
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        # a plain view: code that takes arrays should not meet the memmap class
        return array.view(np.ndarray)

    def _json(self, name: str) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.artefact.file(name).read_text(encoding="utf-8"))
        return value

    def _examples(self, name: str) -> Examples:
        columns = [self._array(f"{name}/{column}.npy") for column in ("starts", "ends", "targets", "sessions")]
        return Examples(self._array("evaluation_items.npy"), *columns)


def write_array(directory: Path, name: str, array: npt.NDArray[Any]) -> None:
    """Write one array of a data set, making its folder."""
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.ascontiguousarray(array), allow_pickle=False)


def write_examples(directory: Path, name: str, examples: Examples) -> None:
    """Write one example set; its click array is written once, as ``evaluation_items.npy``."""
    columns: dict[str, npt.NDArray[Any]] = {
        "starts": examples.starts,
        "ends": examples.ends,
        "targets": examples.targets,
        "sessions": examples.sessions,
    }
    for column, values in columns.items():
        write_array(directory, f"{name}/{column}.npy", values)
