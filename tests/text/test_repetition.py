"""Sentences that repeat across the catalogue are found in bounded memory, and only those."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from llmgr_core.data.item import Item
from llmgr_core.settings.text import TextSettings
from llmgr_core.text import TextCleaner
from llmgr_core.text.repetition import RepeatCounter

SLOGAN = "We are the leading maker of fine rulers."


def catalogue(repeats: int, size: int = 100) -> list[Item]:
    return [Item(str(n), f"Ruler {n}", f"Ruler number {n} is long. {SLOGAN if n < repeats else ''}") for n in range(size)]


def test_a_sentence_in_many_items_is_dropped_everywhere() -> None:
    items = catalogue(repeats=10)
    cleaner = TextCleaner(TextSettings(repeated_items=10)).fit(items)
    assert cleaner.clean(items[0]) == "Ruler 0. Ruler number 0 is long."
    assert cleaner.clean(Item("new", "Cup", SLOGAN.upper())) == "Cup."


def test_a_sentence_in_few_items_stays() -> None:
    items = catalogue(repeats=9)
    cleaner = TextCleaner(TextSettings(repeated_items=10)).fit(items)
    assert SLOGAN in (cleaner.clean(items[0]) or "")


def test_the_share_counts_in_a_large_catalogue() -> None:
    items = catalogue(repeats=10)
    assert not TextCleaner(TextSettings(repeated_items=2, repeated_share=0.11)).fit(items).repeated
    assert len(TextCleaner(TextSettings(repeated_items=2, repeated_share=0.10)).fit(items).repeated) == 1


def test_saying_it_often_in_one_item_is_not_repetition() -> None:
    items = [Item("0", "Ruler", f"{SLOGAN} " * 50)]
    assert not TextCleaner(TextSettings(repeated_items=2, repeated_share=0)).fit(items).repeated


def test_titles_are_no_boilerplate_however_often_they_stand() -> None:
    items = [Item(str(n), "The very same title of an item") for n in range(50)]
    assert not TextCleaner(TextSettings(repeated_items=2, repeated_share=0.0)).fit(items).repeated


@given(st.lists(st.sets(st.integers(0, 30), max_size=5), max_size=60), st.integers(2, 10))
def test_counts_are_exact_while_everything_fits(rows: list[set[int]], threshold: int) -> None:
    counter = RepeatCounter()
    for row in rows:
        counter.add(row)
    exact = Counter(value for row in rows for value in row)
    assert counter.at_least(threshold) == {value for value, count in exact.items() if count >= threshold}


@given(st.lists(st.sets(st.integers(0, 200), max_size=8), max_size=80), st.integers(2, 6))
def test_nothing_rare_is_reported_when_memory_is_short(rows: list[set[int]], threshold: int) -> None:
    counter = RepeatCounter(capacity=10)
    for row in rows:
        counter.add(row)
        assert len(counter._counts) <= 10 + 8
    exact = Counter(value for row in rows for value in row)
    assert all(exact[value] >= threshold for value in counter.at_least(threshold))


def test_a_frequent_sentence_survives_a_flood_of_rare_ones() -> None:
    counter = RepeatCounter(capacity=1000)
    for number in range(50_000):
        counter.add({-1, number} if number % 10 == 0 else {number})
    assert -1 in counter.at_least(100)
    assert counter.at_least(100) == {-1}
