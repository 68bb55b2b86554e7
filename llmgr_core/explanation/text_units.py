"""The words and attributes of an item's text, each of which can be left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

_WORD = re.compile(r"\S+")
_EDGES = " \t.,;:!?()[]\"'"


@dataclass(frozen=True)
class TextUnit:
    """One attribute ("Brand: OPI") or one word of a text, or all of it.

    Attributes:
        kind: "attribute", "word", or "text" for all of it.
        label: as shown, without punctuation around it.
        start, end: what is left out, ``text[start:end]``.
    """

    kind: Literal["attribute", "word", "text"]
    label: str
    start: int
    end: int


def text_units(text: str, attributes: Sequence[str] = ()) -> list[TextUnit]:
    """The whole text, its attributes, whole, then word by word; punctuation that stands alone is no unit.

    Args:
        text: a cleaned text, which starts with its attributes.
        attributes: as ``llmgr_core.text.fields.item_parts`` gives them; those that cleaning changed are taken word by word.
    """
    units = [TextUnit("text", "(the whole text)", 0, len(text))]
    place = 0
    for attribute in attributes:
        if not text.startswith(attribute, place):
            continue
        end = place + len(attribute)
        units.append(TextUnit("attribute", attribute, place, _past_stop(text, end)))
        place = units[-1].end
    for match in _WORD.finditer(text, place):
        label = match.group().strip(_EDGES)
        if any(letter.isalnum() for letter in label):
            units.append(TextUnit("word", label, match.start(), match.end()))
    return units


def without(text: str, unit: TextUnit) -> str:
    """The text with one unit left out, blanks closed up; empty where nothing else stood in it."""
    return " ".join((text[: unit.start] + " " + text[unit.end :]).split())


def _past_stop(text: str, place: int) -> int:
    while place < len(text) and text[place] in ". ":
        place += 1
    return place
