"""An item as it stands in the store: JSON, the same bytes for the same item."""

from __future__ import annotations

import json
from typing import Any

from llmgr_core.data.item import Item
from llmgr_core.store.errors import StoreError


def encode_item(item: Item) -> bytes:
    """The record of an item, without its id (which is the key).

    Fields without content are left out, and an empty text counts as none: both mean that nothing is known.
    """
    fields: dict[str, Any] = {
        "title": item.title,
        "description": item.description,
        "brand": item.brand,
        "categories": [list(path) for path in item.categories],
        "attributes": item.attributes,
    }
    known = {name: value for name, value in fields.items() if value}
    return json.dumps(known, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode("utf-8")


def decode_item(item_id: str, record: bytes) -> Item:
    """Inverse of encode_item; an empty record (an item that was deleted before it was ever inserted) has no fields.

    Raises:
        StoreError: no record of an item.
    """
    try:
        fields = json.loads(record) if record else {}
        return Item(
            item_id,
            fields.get("title"),
            fields.get("description"),
            fields.get("brand"),
            tuple(tuple(path) for path in fields.get("categories", ())),
            dict(fields.get("attributes", {})),
        )
    except (ValueError, AttributeError, TypeError):
        raise StoreError(f"the record of item {item_id!r} is not one of an item", "insert the item again") from None
