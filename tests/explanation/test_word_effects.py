"""A word left out does what an edit of the item's text would do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_ranker import TEXT_DIMENSION, SmallRanker, small_ranker

from llmgr_core.errors import InputError
from llmgr_core.explanation.text_units import text_units, without
from llmgr_core.explanation.word_effects import ItemText, strongest_units, word_effects
from llmgr_core.ranker import RankerRuntime


def hashed_words(texts: list[str]) -> np.ndarray:
    """A language model of the simplest kind: the sum of a fixed random vector for each word."""
    vectors = np.zeros((len(texts), TEXT_DIMENSION))
    for row, text in enumerate(texts):
        for word in text.split():
            vectors[row] += np.random.default_rng(sum(map(ord, word))).normal(size=TEXT_DIMENSION)
    return vectors.astype(np.float16)


def effects_of(ranker: SmallRanker, clicks: list[int], items: list[int], texts: dict[int, ItemText], embed=hashed_words):
    vectors = {item: ranker.vectors[item] if ranker.present[item] else None for item in texts}
    return word_effects(ranker.runtime, np.array(clicks), np.array(items), texts, vectors, embed)


def test_attributes_are_taken_whole_and_the_rest_word_by_word() -> None:
    text = "Brand: OPI. Category: Beauty > Nails. Nail Lacquer, Red - dries fast."
    units = text_units(text, ["Brand: OPI", "Category: Beauty > Nails"])
    assert [(unit.kind, unit.label) for unit in units] == [
        ("text", "(the whole text)"),
        ("attribute", "Brand: OPI"),
        ("attribute", "Category: Beauty > Nails"),
        *(("word", word) for word in ("Nail", "Lacquer", "Red", "dries", "fast")),
    ]
    assert without(text, units[0]) == ""
    assert without(text, units[1]) == "Category: Beauty > Nails. Nail Lacquer, Red - dries fast."
    assert without(text, units[2]) == "Brand: OPI. Nail Lacquer, Red - dries fast."
    assert without(text, units[3]) == "Brand: OPI. Category: Beauty > Nails. Lacquer, Red - dries fast."
    # Cleaning may have changed an attribute; then it is words.
    assert [unit.label for unit in text_units("Brand: OPI. Nails", ["Brand: O.P.I."])][1:] == ["Brand", "OPI", "Nails"]


@given(st.text(max_size=60), st.lists(st.text(max_size=10), max_size=3))
def test_any_text_has_units_that_can_be_left_out(text: str, attributes: list[str]) -> None:
    for unit in text_units(text, attributes):
        assert 0 <= unit.start <= unit.end <= len(text)
        assert len(without(text, unit)) <= len(text) + 1


def test_an_effect_is_that_of_a_ranker_with_the_edited_text() -> None:
    ranker = small_ranker()
    clicks, items = [7, 9], [20, 21, 3]
    texts = {7: ItemText("red lipstick matte"), 20: ItemText("blue comb"), 3: ItemText("small mirror")}
    effects = effects_of(ranker, clicks, items, texts)
    assert [one.item for one in effects] == [7, 20, 3]
    for one in effects:
        whole = texts[one.item].text
        for unit, drops in zip(one.units, one.drops, strict=True):
            scores = []
            for text in (whole, without(whole, unit)):
                vectors, present = ranker.vectors.copy(), ranker.present.copy()
                present[one.item] = bool(text)
                if text:
                    vectors[one.item] = hashed_words([text])[0]
                edited = RankerRuntime(ranker.stored.parts("e", ranker.runtime.parts.item_ids), vectors, present).snapshot
                ranking = edited.rank(np.array(clicks), 60, include_seen=True)
                found = dict(zip(ranking.indices.tolist(), ranking.scores.tolist(), strict=True))
                scores.append([found.get(item, np.nan) for item in items])
            np.testing.assert_allclose(drops, np.subtract(*scores), atol=2e-5)
    # The text of a candidate moves its own score and no other; that of a click moves all.
    assert not effects[1].drops[:, 1:2].any()
    assert effects[0].drops.all(axis=1).all()


def test_the_ranker_is_as_it_was_afterwards() -> None:
    ranker = small_ranker()
    before = ranker.snapshot.rank(np.array([7, 9]), 10)
    effects_of(ranker, [7, 9], [20, 3], {7: ItemText("red"), 20: ItemText("blue comb"), 3: ItemText("mirror")})
    after = ranker.snapshot.rank(np.array([7, 9]), 10)
    np.testing.assert_array_equal(before.indices, after.indices)
    np.testing.assert_allclose(before.scores, after.scores, atol=1e-5)


def test_every_distinct_text_is_embedded_once() -> None:
    asked: list[str] = []

    def embed(texts: list[str]) -> np.ndarray:
        asked.extend(texts)
        return hashed_words(texts)

    effects_of(small_ranker(), [7], [20], {7: ItemText("red comb"), 20: ItemText("red comb")}, embed)
    assert sorted(asked) == ["comb", "red", "red comb"]


def test_items_without_text_have_no_words_and_one_word_is_the_whole_text() -> None:
    ranker = small_ranker()
    effects = effects_of(ranker, [5, 7], [20], {5: ItemText(None), 20: ItemText("comb")})
    assert [one.item for one in effects] == [20]
    assert [unit.label for unit in effects[0].units] == ["(the whole text)", "comb"]
    assert effects[0].drops[0, 0] == effects[0].drops[1, 0]


def test_a_click_that_is_nothing_but_text_leaves_no_score_without_it() -> None:
    effects = effects_of(small_ranker(), [3], [20], {3: ItemText("small mirror")})
    assert np.isnan(effects[0].drops[0, 0])
    assert np.isfinite(effects[0].drops[1:, 0]).all()


def test_the_strongest_words_cost_the_most_and_are_no_whole_texts() -> None:
    effects = effects_of(small_ranker(), [7, 9], [20, 21], {7: ItemText("red matte lipstick"), 20: ItemText("blue comb")})
    found = strongest_units(effects, 0, 3)
    every = [drop for one in effects for drop in one.drops[1:, 0].tolist() if drop > 0]
    assert [drop for _, _, drop in found] == sorted(every, reverse=True)[:3]
    assert all(unit.kind == "word" for _, unit, _ in found)


def test_a_text_that_the_vector_was_not_made_of_is_noticed() -> None:
    ranker = small_ranker()
    ranker.vectors[20] = hashed_words(["blue comb"])[0]
    same, other = (effects_of(ranker, [7], [20], {20: ItemText(text)})[0] for text in ("blue comb", "red soap"))
    assert same.agreement == pytest.approx(1.0, abs=1e-3)
    assert other.agreement < 0.99


def test_a_ranker_without_text_and_foreign_vectors_are_refused() -> None:
    with pytest.raises(InputError, match="reads no text"):
        effects_of(small_ranker(text=False, without_text=()), [7], [20], {20: ItemText("comb")})
    with pytest.raises(InputError, match="does not fit the ranker"):
        effects_of(small_ranker(), [7], [20], {20: ItemText("comb")}, lambda texts: np.ones((len(texts), 3), dtype=np.float16))


@pytest.mark.weights
def test_a_real_language_model_finds_the_word_that_carries(minilm: Path) -> None:
    """Rows are MiniLM's own directions: what likens a lipstick to a lipstick is the word."""
    from llmgr_core.engine import SemanticEngine
    from llmgr_core.ranker import FoldedTransform, ScoringSettings
    from llmgr_core.ranker.parts import RankerParts
    from llmgr_core.settings.engine import EngineSettings

    engine = SemanticEngine.load(EngineSettings(model=str(minilm), max_tokens=32))

    def embed(texts: list[str]) -> np.ndarray:
        return engine.embed_texts(texts).astype(np.float16)

    texts = ["Matte red lipstick by Maybelline", "Crimson lipstick, new in box", "Cordless hair dryer, 2000 W"]
    vectors = embed(texts)
    d = engine.hidden_size
    parts = RankerParts(
        version="v",
        item_ids=["a", "b", "c"],
        id_vectors=np.zeros((3, d), dtype=np.float32),
        has_id=np.zeros(3, dtype=np.bool_),
        popularity=np.zeros(3, dtype=np.int64),
        transform=FoldedTransform(np.eye(d, dtype=np.float32), np.zeros(d, dtype=np.float32), 1.0),
        session_vector=lambda nodes, click_nodes: nodes[click_nodes[-1]],
        max_clicks=5,
        cosine=True,
        logit_scale=1.0,
        transitions=None,
        scoring=ScoringSettings(),
    )
    runtime = RankerRuntime(parts, vectors)
    given_texts = {item: ItemText(texts[item]) for item in (0, 1)}
    effects = word_effects(runtime, np.array([0]), np.array([1]), given_texts, dict(enumerate(vectors)), embed)
    for one in effects:
        assert one.agreement == pytest.approx(1.0, abs=1e-3)
        words = [
            (unit.label, float(drop)) for unit, drop in zip(one.units, one.drops[:, 0], strict=True) if unit.kind == "word"
        ]
        assert max(words, key=lambda pair: pair[1])[0] == "lipstick"
