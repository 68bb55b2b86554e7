"""What holds for any text whatever."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmgr_core.data.item import Item
from llmgr_core.settings.text import TextSettings
from llmgr_core.text import TextCleaner
from llmgr_core.text.sentences import count_tokens, split_sentences

MARKUP = ["<b>", "</b>", "<br>", "<li", "<!--", "-->", "<script>", "</script>"]
ENCODED = ["&amp;", "&lt;", "&gt;", "&amp;lt;", "&#38;", "&amp", "lt;"]
SIGNS = ["['", "', '", "']", "\\'", "\n", "\n- ", "•", ". ", ".", "..", "!", "?", " ,", "---", "**", "http://", "www."]
BROKEN = ["\x00", "\x1e", "\ufeff", "\ud800", "Ã©", "â€™", "Â", "\xa0\xa0", "\u200b", "x.Yes", "a.b@c.de", "日本", "x" * 40]
WORDS = ["Brand: ", "Category: ", " > ", "free shipping", "100% brand new and high quality", "Dr. ", "steel", "Made of steel."]
WORDS += ["made of Steel.", "1984", "Description: ", "nan", "Amazon.com ", "Yes! 100% satisfaction guaranteed!"]
UGLY = MARKUP + ENCODED + SIGNS + BROKEN + WORDS
UGLY_TEXT = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(UGLY), max_size=25).map("".join))
FITTED = TextCleaner(TextSettings(max_tokens=24, repeated_items=2, repeated_share=0.0)).fit(
    Item(str(n), None, "Made of steel. The leading maker of rulers.") for n in range(3)
)
ITEMS = st.builds(
    Item,
    item_id=st.just("i"),
    title=st.none() | UGLY_TEXT,
    description=st.none() | UGLY_TEXT,
    brand=st.none() | UGLY_TEXT,
    categories=st.lists(st.lists(UGLY_TEXT, max_size=3).map(tuple), max_size=3).map(tuple),
    attributes=st.dictionaries(UGLY_TEXT, UGLY_TEXT, max_size=3),
)


@settings(deadline=None, max_examples=300)
@given(ITEMS, st.sampled_from([TextCleaner(), FITTED]))
def test_cleaning_is_idempotent_and_what_comes_out_is_readable(item: Item, cleaner: TextCleaner) -> None:
    text = cleaner.clean(item)
    if text is None:
        return
    assert cleaner.clean(Item("j", title=text)) == text
    assert any(character.isalnum() for character in text)
    assert text == text.strip()
    assert "\n" not in text
    assert "  " not in text
    text.encode("utf-8")
    assert all(character.isprintable() for character in text if character.isascii())
    assert count_tokens(text) <= cleaner.settings.max_tokens
    assert cleaner.clean(item) == text


@settings(max_examples=200, deadline=None)
@given(UGLY_TEXT)
def test_a_plain_title_is_never_lost(text: str) -> None:
    assert TextCleaner().clean(Item("i", title="Steel ruler", description=text)) is not None


@given(st.text(max_size=80))
def test_sentences_joined_are_the_text(text: str) -> None:
    line = " ".join(text.split())
    assert " ".join(split_sentences(line)) == line


MEGABYTE = 1_000_000
PIECES = ["steel ", "Steel is hard. ", "&ampamp;", "<b>x", "é\u0301\x00", "Ã¢â‚¬", "<div><p>One two.</p>", "\ud800a", "x. Y"]


@pytest.mark.parametrize("piece", PIECES)
def test_a_megabyte_of_text_is_cleaned_in_bounded_time(piece: str) -> None:
    text = piece * (MEGABYTE // len(piece))
    item = Item("i", title=text, description=text)
    start = time.process_time()
    TextCleaner().clean(item)
    assert time.process_time() - start < 2.0
