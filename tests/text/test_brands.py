"""Brands anonymised: every item's own name and every known one gone, words that hold one untouched, identities as before."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from llmgr_core.data.item import Item
from llmgr_core.settings.text import TextSettings
from llmgr_core.text import TextCleaner
from llmgr_core.text.brands import KnownBrands, brands_of, made_up_name, without_own_brand

SETTINGS = TextSettings(brands="anonymised")


def anonymiser(*items: Item) -> TextCleaner:
    return TextCleaner(SETTINGS).knowing(lambda: items).fit(items)


def test_the_name_goes_from_the_brand_field_the_title_and_the_description():
    item = Item(
        "i", "Olay Total Effects", "The new OLAY cream. Olay's best.", "Olay", (("Beauty", "Olay Shop"),), {"Maker": "olay"}
    )
    name = made_up_name("Olay")
    assert anonymiser(item).clean(item) == (
        f"Brand: {name}. Category: Beauty > {name} Shop. Maker: {name}. {name} Total Effects. "
        f"The new {name} cream. {name}'s best."
    )


def test_names_are_stable_made_up_and_each_brand_has_its_own():
    brands = [f"{first} {second}" for first in ("Olay", "Dove", "Essie", "Zoya") for second in map(str, range(400))]
    names = [made_up_name(brand) for brand in brands]
    assert len(set(names)) == len(brands)
    assert all(re.fullmatch(r"[A-Z][a-z]{7}", name) for name in names)
    assert made_up_name("Olay") == "Tolitesu", "vectors made on one machine must be those of another"
    assert made_up_name("설화수") != made_up_name("산해산")
    assert made_up_name("L'Oréal") == made_up_name("l'oreal") == made_up_name("L’OREAL")


@pytest.mark.parametrize(
    ("text", "brand", "wanted"),
    [
        ("Doverton soap, Dove soap, aloeDove", "Dove", "Doverton soap, @ soap, aloeDove"),
        ("L’Oréal Paris and L'OREAL PARIS", "L'Oreal Paris", "@ and @"),
        ("e.l.f. Studio, ELF Studio, elf-ish", "e.l.f.", "@ Studio, @ Studio, @-ish"),
        ("WEN by Chaz Dean oil", "WEN® by Chaz Dean", "@ oil"),
        ("資生堂化粧水 (資生堂)", "資生堂", "@化粧水 (@)"),
        ("설화수 크림, 산해산 크림, 설화수의 향", "설화수", "@ 크림, 산해산 크림, @의 향"),
        ("ガラスとカラス", "ガラス", "@とカラス"),
        ("Крем Чистая Линия ночной", "ЧИСТАЯ ЛИНИЯ", "Крем @ ночной"),
        ("Nothing of it", "Olay", "Nothing of it"),
        ("100% (cotton)", "***", "100% (cotton)"),
        ("A+B (C) [x]", "A+B (C)", "@) [x]"),
    ],
)
def test_own_names_inside_words_in_other_scripts_and_with_signs(text, brand, wanted):
    assert without_own_brand(text, brand) == wanted.replace("@", made_up_name(brand))


def test_a_title_may_begin_with_part_of_its_brand():
    name = made_up_name("Sigma Beauty")
    assert without_own_brand("SIGMA Travel Kit by Sigma", "Sigma Beauty", is_title=True) == f"{name} Travel Kit by Sigma"
    assert without_own_brand("Travel Kit by Sigma", "Sigma Beauty", is_title=True) == "Travel Kit by Sigma"
    assert without_own_brand("Sigma is a letter", "Sigma Beauty") == "Sigma is a letter", "a description keeps its words"
    assert without_own_brand("Dr. Teal's Salt", "Dr. Bronner's", is_title=True) == "Dr. Teal's Salt"


def test_an_item_without_a_brand_loses_the_names_of_others_in_their_own_spelling():
    catalogue = [Item("a", "Cream", brand="Simple"), Item("b", "Soap", brand="Paul Mitchell"), Item("c", "Wax", brand="Paul")]
    cleaner = anonymiser(*catalogue)
    title = "Simple Cap like Paul Mitchell, simple to use; Paul, PAUL"
    assert cleaner.clean(Item("d", title)) == (
        f"{made_up_name('Simple')} Cap like {made_up_name('Paul Mitchell')}, simple to use; {made_up_name('Paul')}, PAUL"
    )
    assert cleaner.clean(Item("e", "Nothing known here")) == "Nothing known here"


def test_a_name_that_is_a_word_to_others_is_only_replaced_in_its_own_items():
    texts = [("Clear", "Clear Shampoo"), ("OPI", "Clear Coat"), ("Essie", "Clear Gloss"), ("", "OPI Clear Red")]
    assert brands_of(lambda: texts) == {"OPI", "Essie"}
    cleaner = anonymiser(*(Item(str(n), text, brand=brand or None) for n, (brand, text) in enumerate(texts)))
    assert cleaner.clean(Item("x", "OPI Clear Red")) == f"{made_up_name('OPI')} Clear Red"
    assert (
        cleaner.clean(Item("y", "Clear Shampoo", brand="Clear"))
        == f"Brand: {made_up_name('Clear')}. {made_up_name('Clear')} Shampoo"
    )


def test_short_names_and_numbers_are_no_known_brands():
    assert KnownBrands(["C", "EO", "1907", "3 5 1", "Zoya"]).names == ("Zoya",)


def test_a_sentence_that_repeats_is_known_by_its_anonymised_form():
    items = [Item(str(n), f"Ruler {n}", f"Acme rulers are the best. Ruler number {n} is long.", "Acme") for n in range(12)]
    text = anonymiser(*items).clean(items[3])
    assert text is not None
    assert "are the best" not in text
    assert "Ruler number 3 is long" in text


def test_the_state_carries_the_brands_and_makes_another_fingerprint():
    item = Item("i", "Olay Cream", brand="Olay")
    cleaner = anonymiser(item)
    again = TextCleaner.from_state(cleaner.state())
    assert (
        again.clean(Item("j", "Cream by Olay"))
        == cleaner.clean(Item("j", "Cream by Olay"))
        == f"Cream by {made_up_name('Olay')}"
    )
    assert again.digest == cleaner.digest
    assert len({cleaner.digest, TextCleaner(SETTINGS).digest, TextCleaner().digest}) == 3


def test_cleaners_and_data_sets_without_the_control_are_those_from_before_it():
    assert TextCleaner().digest == "f558d01a74bbfc2654f2408eb726a8e6e646b37bcbb0880256426b1111f27b07"
    assert set(TextSettings().shaping()) == {"max_tokens", "attributes", "drop_phrases", "repeated_items", "repeated_share"}
    assert TextSettings(brands="anonymised").shaping()["brands"] == "anonymised"
    item = Item("i", "Olay Cream", brand="Olay")
    assert TextCleaner().knowing(lambda: [item]).clean(item) == "Brand: Olay. Olay Cream"


WORDS = st.lists(
    st.sampled_from(["Olay", "olay", "OLAY", "Dove", "Simple", "cream", "é", "資生堂", "-", ".", ". ", " ", "™"]), max_size=12
)


@hypothesis_settings(max_examples=200, deadline=None)
@given(WORDS.map("".join), WORDS.map("".join), st.sampled_from([None, "Olay", "資生堂", "Dove Simple", "™"]))
def test_cleaning_stays_idempotent_and_no_known_name_is_left(title, description, brand):
    cleaner = anonymiser(Item("a", "x y", brand="Olay"), Item("b", "x y", brand="Dove"))
    text = cleaner.clean(Item("i", title, description, brand))
    if text is None:
        return
    assert cleaner.clean(Item("j", title=text)) == text
    assert not re.search(r"(?<![^\W_])(?:Olay|Dove)(?![^\W_])", text)
    if brand == "Olay":
        assert not re.search(r"(?<![^\W_])olay(?![^\W_])", text, re.I)
