"""An Item as a message of the contract, and back; the same for client and server."""

from __future__ import annotations

from llmgr_core.data.item import Item
from llmgr_core.errors import InputError
from services.contract import item_pb2


def item_message(item: Item) -> item_pb2.Item:
    """The message of an item.

    Raises:
        InputError: a text holds lone surrogates, which no UTF-8 can carry.
    """
    try:
        return item_pb2.Item(
            item_id=item.item_id,
            title=item.title,
            description=item.description,
            brand=item.brand,
            categories=[item_pb2.CategoryPath(names=path) for path in item.categories],
            attributes=item.attributes,
        )
    except (UnicodeEncodeError, ValueError) as error:
        raise InputError(f"item {item.item_id!r} cannot be sent: {error}", "repair the text's encoding") from None


def item_from_message(message: item_pb2.Item) -> Item:
    """The item of a message; an empty text is one that is not known."""
    return Item(
        item_id=message.item_id,
        title=message.title or None,
        description=message.description or None,
        brand=message.brand or None,
        categories=tuple(tuple(path.names) for path in message.categories),
        attributes=dict(message.attributes),
    )
