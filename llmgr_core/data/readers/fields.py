"""Which columns of a file mean what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path

from llmgr_core.errors import InputError


class Record(StrEnum):
    """What a row of a file is."""

    ITEM = "item"
    SESSION = "session"
    CLICK = "click"
    EXAMPLE = "example"


# field -> names it goes by in the wild; the first is ours
NAMES: dict[str, tuple[str, ...]] = {
    "item_id": ("item_id", "parent_asin", "asin", "product_id"),
    "title": ("title", "name"),
    "description": ("description",),
    "brand": ("brand",),
    "categories": ("categories", "category"),
    "attributes": ("attributes",),
    "session_id": ("session_id", "user_id"),
    "items": ("items", "item_ids", "item_id_list"),
    "timestamps": ("timestamps", "timestamp_list"),
    "timestamp": ("timestamp", "time"),
    "target": ("target",),
}

FIELDS: dict[Record, tuple[str, ...]] = {
    Record.ITEM: ("item_id", "title", "description", "brand", "categories", "attributes"),
    Record.SESSION: ("session_id", "items", "timestamps"),
    Record.CLICK: ("session_id", "item_id", "timestamp"),
    Record.EXAMPLE: ("items", "target"),
}
REQUIRED: dict[Record, tuple[str, ...]] = {
    Record.ITEM: ("item_id",),
    Record.SESSION: ("items",),
    Record.CLICK: ("session_id", "item_id"),
    Record.EXAMPLE: ("items", "target"),
}


def find_columns(
    record: Record, available: Iterable[str], chosen: Mapping[str, str], path: Path, *, may_have_more: bool = False
) -> dict[str, str]:
    """The column of each field of a record; fields without a column are left out.

    Args:
        record: what a row is.
        available: columns of the file.
        chosen: the user's own names (data.fields); they come before ours.
        path: the file, for the message.
        may_have_more: later rows may have further columns (JSON); facts about an item are then looked for under our names.

    Raises:
        InputError: a required field has no column.
    """
    present = list(available)
    columns = {}
    for field in FIELDS[record]:
        names = (chosen[field],) if field in chosen else NAMES[field]
        if record is Record.EXAMPLE and field == "target" and field not in chosen:
            # RecBole's session files name the item that followed plainly item_id
            names = (*names, "item_id")
        column = next((name for name in names if name in present), None)
        if column is not None:
            columns[field] = column
        elif may_have_more and record is Record.ITEM and field not in REQUIRED[record]:
            columns[field] = names[0]
        elif field in REQUIRED[record]:
            raise InputError(
                f"{path} has no column {' or '.join(names)}; it has {', '.join(present[:12]) or 'none'}",
                f"tell which one it is: --set data.fields.{field}=YOUR_COLUMN",
            )
    return columns


def record_of_clicks(available: Iterable[str], chosen: Mapping[str, str]) -> Record:
    """Whether a file of sessions holds whole sessions or single clicks: the former have a column of items."""
    names = (chosen["items"],) if "items" in chosen else NAMES["items"]
    return Record.SESSION if set(names) & set(available) else Record.CLICK
