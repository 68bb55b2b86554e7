"""One line of text from the fields of an item, structured ones first."""

from __future__ import annotations

import re
from functools import lru_cache

from llmgr_core.data.item import Item
from llmgr_core.text.characters import repair
from llmgr_core.text.phrases import PLACEHOLDERS
from llmgr_core.text.sentences import sentence_key

# Longer values are no names: markup, or a description in the wrong field.
LONGEST_NAME = 80
LONGEST_VALUE = 160
# Paths of one step (genres, tags) stand side by side.
MOST_TAGS = 6
# Lists whose line breaks were lost on the way keep two spaces between their lines.
_ITEM_OF_LIST = re.compile(r"(?<=[\w)])[ \xa0]{2,20}(?=[A-Z0-9])")
# Headings that a scraped description starts with.
_HEADING = re.compile(
    r"(?:product description|from the manufacturer|amazon\.com(?: review)?"
    r"|(?:product )?(?:descriptions?|features?|specifications?)\s*:)[\s:*.-]+(?=\S)",
    re.I,
)


def item_parts(item: Item, limit: int, attributes: int) -> tuple[list[str], str, str]:
    """Repaired fields of an item.

    Args:
        limit: characters kept of the title and of the description.
        attributes: named attributes kept, by name.

    Returns:
        Structured facts as sentences ("Brand: OPI."), the title, and the description without a title repeated at its start.
    """
    facts: list[str] = []
    if brand := brand_name(item):
        facts.append(f"Brand: {brand}")
    if item.categories and (category := _category(item.categories)):
        facts.append(f"Category: {category}")
    if item.attributes:
        facts += _attributes(item.attributes, attributes)
    title = _field(item.title, limit)
    described = _ITEM_OF_LIST.sub("; ", item.description) if item.description and "  " in item.description else item.description
    description = _without_heading(_field(described, limit))
    return facts, title, _without_title(description, title)


def brand_name(item: Item) -> str:
    """The repaired brand of an item; empty where it has none, or something longer than a name."""
    return _name(item.brand, LONGEST_NAME) if item.brand else ""


def join_sentences(parts: list[str]) -> str:
    """Parts as one line, each ended by a full stop if nothing ends it."""
    ended = [part if part.endswith((".", "!", "?")) else part + "." for part in parts[:-1]]
    return " ".join(ended + parts[-1:])


def _field(text: str | None, limit: int) -> str:
    if not text:
        return ""
    repaired = repair(text, limit)
    return "" if len(repaired) < 32 and sentence_key(repaired) in PLACEHOLDERS else repaired


@lru_cache(maxsize=1 << 16)
def _name(text: str, longest: int) -> str:
    name = _field(text, 8 * longest).rstrip(" ,;:")
    return name if len(name) <= longest and sentence_key(name) else ""


def _category(paths: tuple[tuple[str, ...], ...]) -> str:
    cleaned = [tuple(step for text in path if (step := _name(text, LONGEST_NAME))) for path in paths]
    deepest = max(cleaned, key=len)
    if len(deepest) > 1:
        return " > ".join(deepest)
    tags = list(dict.fromkeys(path[0] for path in cleaned if path))
    return ", ".join(tags[:MOST_TAGS])


def _attributes(attributes: dict[str, str], most: int) -> list[str]:
    facts: list[str] = []
    for key in sorted(attributes)[: 4 * most]:
        name, value = _name(key, LONGEST_NAME), _name(attributes[key], LONGEST_VALUE)
        if name and value and len(facts) < most:
            facts.append(f"{name}: {value}")
    return facts


def _without_heading(description: str) -> str:
    while match := _HEADING.match(description):
        description = description[match.end() :]
    return description


def _without_title(description: str, title: str) -> str:
    """Drop a title that is repeated at the start, unless it is the subject of the first sentence ("TITLE is made of ...")."""
    if len(title) < 12 or description[: len(title)].lower() != title.lower():
        return description
    rest = description[len(title) :].lstrip(" .,;:!-–")
    if rest and (rest[0].islower() or description[len(title)].isalnum()):
        return description
    return rest
