"""Checking what a request brings, field by field, before anything is done with it."""

from __future__ import annotations

from collections.abc import Iterator

from llmgr_core.data.item import Item
from services.contract import item_pb2
from services.item_messages import item_from_message
from services.server.errors import RequestError, invalid_field

# Names of all category paths together, and attributes: each costs time however short it is.
MAX_PARTS = 1000
MAX_EPOCH_BYTES = 64


def valid_item_id(item_id: str, field: str, max_bytes: int) -> str:
    """An item id as it came.

    Raises:
        RequestError: INVALID_ARGUMENT: empty, too long, or with a NUL.
    """
    if not item_id:
        raise invalid_field(field, "the item id is empty")
    if "\0" in item_id:
        raise invalid_field(field, "the item id holds a NUL character")
    size = len(item_id.encode("utf-8"))
    if size > max_bytes:
        raise invalid_field(field, f"the item id has {size} bytes; at most {max_bytes} are taken")
    return item_id


def valid_item(message: item_pb2.Item, *, max_id_bytes: int, max_text_bytes: int) -> Item:
    """The item of a message.

    Raises:
        RequestError: INVALID_ARGUMENT that names the field: a bad id, no text at all, too much text, or a NUL.
    """
    valid_item_id(message.item_id, "item.item_id", max_id_bytes)
    names = sum(len(path.names) for path in message.categories)
    counts = (("categories", len(message.categories)), ("categories", names), ("attributes", len(message.attributes)))
    for field, count in counts:
        if count > MAX_PARTS:
            raise invalid_field(f"item.{field}", f"{count} entries; at most {MAX_PARTS} are taken")
    total = 0
    for field, text in _texts(message):
        if "\0" in text:
            raise invalid_field(field, "the text holds a NUL character, which is no text: check its encoding")
        total += len(text.encode("utf-8"))
        if total > max_text_bytes:
            raise invalid_field(field, f"the item's texts have more than {max_text_bytes} bytes together")
    if not total:
        raise invalid_field("item", "the item has no text: a title, description, brand, category or attribute is needed")
    return item_from_message(message)


def require_epoch(store_epoch: str) -> None:
    """Look at the identity of a store before anything is compared with it.

    Raises:
        RequestError: INVALID_ARGUMENT: longer than any is.
    """
    if len(store_epoch) > MAX_EPOCH_BYTES:
        raise invalid_field("store_epoch", f"{len(store_epoch)} characters; at most {MAX_EPOCH_BYTES} are taken")


def no_text_left() -> RequestError:
    """For an item of which cleaning leaves nothing."""
    return invalid_field("item", "no text is left of the item after markup and marketing phrases are removed")


def _texts(message: item_pb2.Item) -> Iterator[tuple[str, str]]:
    yield "item.title", message.title
    yield "item.description", message.description
    yield "item.brand", message.brand
    for number, path in enumerate(message.categories):
        for name in path.names:
            yield f"item.categories[{number}]", name
    for key, value in message.attributes.items():
        yield "item.attributes", key
        yield "item.attributes", value
