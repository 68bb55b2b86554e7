"""Items as columns: the Arrow form of a catalogue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

from llmgr_core.data.item import Item

if TYPE_CHECKING:
    import pyarrow as pa

TEXT_FIELDS = ("title", "description", "brand")


def item_schema() -> pa.Schema:
    """Columns of a catalogue table; only ``item_id`` is never null."""
    import pyarrow as pa

    text = [(name, pa.string()) for name in TEXT_FIELDS]
    return pa.schema(
        [
            ("item_id", pa.string()),
            *text,
            ("categories", pa.list_(pa.list_(pa.string()))),
            ("attributes", pa.map_(pa.string(), pa.string())),
        ]
    )


def item_from_row(row: dict[str, Any]) -> Item:
    """The Item of one row of a catalogue table (``Table.to_pylist``)."""
    return Item(
        item_id=row["item_id"],
        title=row["title"],
        description=row["description"],
        brand=row["brand"],
        categories=tuple(tuple(path) for path in row["categories"] or ()),
        attributes=dict(row["attributes"] or ()),
    )


class TextColumn(Sequence[str | None]):
    """A string column read as a sequence; a value becomes a Python string only when it is asked for."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    @overload
    def __getitem__(self, index: int) -> str | None: ...
    @overload
    def __getitem__(self, index: slice) -> list[str | None]: ...
    def __getitem__(self, index: int | slice) -> str | list[str | None] | None:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                values: list[str | None] = self._column.slice(start, max(stop - start, 0)).to_pylist()
                return values
            return [self[place] for place in range(start, stop, step)]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        value: str | None = self._column[int(index)].as_py()
        return value

    def __iter__(self) -> Iterator[str | None]:
        for chunk in self._column.iterchunks():
            for start in range(0, len(chunk), 4096):
                yield from chunk.slice(start, 4096).to_pylist()
