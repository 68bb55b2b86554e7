"""The text of an item: fields in order, nothing twice, nothing empty, within the budget."""

from __future__ import annotations

import pytest

from llmgr_core.data.item import Item
from llmgr_core.errors import ArtefactError
from llmgr_core.settings.text import TextSettings
from llmgr_core.text import TextCleaner
from llmgr_core.text.sentences import count_tokens


def cleaned(**fields: object) -> str | None:
    return TextCleaner().clean(Item("i", **fields))  # type: ignore[arg-type]


def test_structured_fields_stand_first() -> None:
    text = cleaned(
        title="Nail Lacquer, Red",
        description="Dries fast.",
        brand="OPI",
        categories=(("Beauty",), ("Beauty", "Makeup", "Nails")),
        attributes={"size": "15 ml", "colour": "red"},
    )
    assert text == "Brand: OPI. Category: Beauty > Makeup > Nails. colour: red. size: 15 ml. Nail Lacquer, Red. Dries fast."


def test_genres_stand_side_by_side() -> None:
    assert cleaned(title="Toy Story (1995)", categories=(("Animation",), ("Comedy",))) == (
        "Category: Animation, Comedy. Toy Story (1995)"
    )


EMPTY = [{}, {"title": ""}, {"title": " \n"}, {"title": "\x00\x00"}, {"title": "..."}, {"title": "<br>"}]
EMPTY += [{"title": "nan", "brand": "N/A"}, {"description": "[]"}, {"description": "No description available."}]
EMPTY += [{"attributes": {"": "x", "y": ""}}, {"title": "\ufeff\u200b\ud800"}, {"categories": ((), ("",))}]


@pytest.mark.parametrize("fields", EMPTY)
def test_an_item_with_nothing_readable_has_no_text(fields: dict[str, object]) -> None:
    assert cleaned(**fields) is None


def test_a_title_made_of_digits_is_text() -> None:
    assert cleaned(title="1984") == "1984"


def test_a_title_repeated_in_the_description_is_said_once() -> None:
    title = "Empire Level 10304 Router Gauge"
    assert cleaned(title=title, description=f"{title}. Solid aluminum.") == f"{title}. Solid aluminum."
    assert cleaned(title=title, description=f"{title} Solid aluminum.") == f"{title}. Solid aluminum."
    assert cleaned(title=title, description=f"{title} is solid.") == f"{title}. {title} is solid."


def test_a_sentence_said_twice_is_kept_once() -> None:
    assert cleaned(description="Great kit. Sharp thread. GREAT KIT! Sharp thread.") == "Great kit. Sharp thread."


PHRASES = ["100% satisfaction guaranteed!", "Visit our web site for more.", "Free shipping on all orders."]
PHRASES += ["Please allow 1-3cm deviation due to manual measurement.", "For more information go to www.P65Warnings.ca.gov."]
PHRASES += ["Thank you for shopping with us.", "ACME is a registered trademark of ACME Inc.", "1 year warranty included."]
PHRASES += ["100% Brand new and high quality."]


@pytest.mark.parametrize("sentence", PHRASES)
def test_sellers_phrases_are_dropped(sentence: str) -> None:
    assert cleaned(title="Steel ruler", description=f"Made of steel. {sentence} Measures 30 cm.") == (
        "Steel ruler. Made of steel. Measures 30 cm."
    )


ABOUT_THE_ITEM = ["Fits under the monitor.", "A clickable pen with a cap.", "The price tag holder is clear."]
ABOUT_THE_ITEM += ["Click the pen to write.", "A box of 8 No. 2 pencils."]


@pytest.mark.parametrize("sentence", ABOUT_THE_ITEM)
def test_sentences_about_the_item_are_kept(sentence: str) -> None:
    assert cleaned(title="Steel ruler", description=sentence) == f"Steel ruler. {sentence}"


def test_phrases_are_kept_on_request() -> None:
    cleaner = TextCleaner(TextSettings(drop_phrases=False))
    assert cleaner.clean(Item("i", "Ruler", "Free shipping.")) == "Ruler. Free shipping."


def test_an_item_whose_only_text_is_a_phrase_keeps_it() -> None:
    assert cleaned(title="Satisfaction Guaranteed") == "Satisfaction Guaranteed"


def test_long_text_is_cut_at_a_sentence_end() -> None:
    description = " ".join(f"Sentence number {number} speaks of steel." for number in range(100))
    text = TextCleaner(TextSettings(max_tokens=64)).clean(Item("i", "Ruler", description))
    assert text is not None
    assert text.endswith("speaks of steel.")
    assert 50 < count_tokens(text) <= 64


def test_one_endless_sentence_is_cut_at_a_word() -> None:
    text = TextCleaner(TextSettings(max_tokens=64)).clean(Item("i", None, "steel and brass " * 500))
    assert text is not None
    assert text.split()[-1] in {"steel", "and", "brass"}
    assert 50 < count_tokens(text) <= 64


def test_one_endless_word_is_cut() -> None:
    text = TextCleaner(TextSettings(max_tokens=16)).clean(Item("i", "x" * 1_000_000))
    assert text == "x" * 128


def test_a_markup_filled_brand_or_category_step_is_left_out() -> None:
    text = cleaned(title="Ruler", brand="<span>" + "words " * 50, categories=(("Tools", "<div " * 40 + "x" * 90),))
    assert text == "Category: Tools. Ruler"


def test_the_state_makes_the_same_cleaner() -> None:
    items = [Item(str(number), f"Item {number}", "Our company was founded in a garage. Steel.") for number in range(20)]
    cleaner = TextCleaner(TextSettings(max_tokens=32)).fit(items)
    again = TextCleaner.from_state(cleaner.state())
    assert again.digest == cleaner.digest
    assert again.clean(items[0]) == cleaner.clean(items[0]) == "Item 0. Steel."
    assert TextCleaner().digest != cleaner.digest


@pytest.mark.parametrize("state", [{}, {"rules": 0}, {"rules": 1}, {"rules": 1, "settings": {}, "repeated": ["no hash"]}])
def test_what_is_no_state_is_refused(state: dict[str, object]) -> None:
    with pytest.raises(ArtefactError, match="text cleaner"):
        TextCleaner.from_state(state)
