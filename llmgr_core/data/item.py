"""An item of the catalogue, as its owner describes it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Item:
    """One catalogue record, before any cleaning.

    Attributes:
        item_id: any non-empty string; the only key.
        title, description, brand: raw text, None where unknown.
        categories: category paths, each from the root to the leaf.
        attributes: further named facts ("colour": "red").
    """

    item_id: str
    title: str | None = None
    description: str | None = None
    brand: str | None = None
    categories: tuple[tuple[str, ...], ...] = ()
    attributes: dict[str, str] = field(default_factory=dict)
