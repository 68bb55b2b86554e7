"""What the words of clicked items and of ranked items do, by leaving each out and embedding the rest again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llmgr_core.errors import InputError
from llmgr_core.explanation.text_units import TextUnit, text_units, without
from llmgr_core.ranker.runtime import RankerRuntime, RowChange

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Embed = Callable[[list[str]], npt.NDArray[np.float16]]
"""Cleaned texts, none blank, to text vectors e_v float16 [n, D], rounded as a store rounds them."""


@dataclass(frozen=True)
class ItemText:
    """Text of an item.

    Attributes:
        text: cleaned, as the language model reads it; None where it has none.
        attributes: those it starts with.
    """

    text: str | None
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True)
class WordEffects:
    """Effects of the u units of one item's text on the scores of m items.

    Attributes:
        item: whose text it is.
        units: the whole text, its attributes and its words.
        drops: float32 [u, m], score with the whole text less score without the unit; NaN where no score is left.
        agreement: cosine of the vector that the language model makes of the whole text now and the ranker's own one; below
            0.99 the text here is not the one that the ranker's vector was made of. NaN where the ranker has none.
    """

    item: int
    units: tuple[TextUnit, ...]
    drops: Floats
    agreement: float


def word_effects(
    runtime: RankerRuntime,
    clicks: Indices,
    items: Indices,
    texts: Mapping[int, ItemText],
    vectors: Mapping[int, npt.NDArray[np.float16] | None],
    embed: Embed,
) -> list[WordEffects]:
    """Leave out every unit of every text in turn, as though the item's text had been edited, and score again.

    An edit moves the row of the item: as a click it moves z_s, and so every score; as a candidate its own score. What an item
    without training clicks borrows of the transitions moves with it; transitions that stand in the ranker do not.

    Args:
        runtime: of the ranker; its rows change while this runs and are (within rounding) as they were at the end.
        clicks: int64 [t].
        items: int64 [m], items whose scores are asked for.
        texts: text of each item to look at, by index.
        vectors: text vector that the ranker has of each of those items, float16 [D]; None without one.
        embed: the language model.

    Returns:
        One entry for each item with a text, in the order of ``texts``.

    Raises:
        InputError: the ranker reads no text, or vectors of another length.
    """
    if runtime.parts.transform is None:
        raise InputError("this ranker reads no text: no word can carry anything", "choose a ranker with text: --variant fused")
    entries = [(item, one.text, tuple(text_units(one.text, one.attributes))) for item, one in texts.items() if one.text]
    variants = [[text, *(without(text, unit) for unit in units)] for _, text, units in entries]
    distinct = list(dict.fromkeys(text for row in variants for text in row if text))
    embedded = dict(zip(distinct, embed(distinct), strict=True)) if distinct else {}
    effects = []
    for (item, text, units), row in zip(entries, variants, strict=True):
        name, own = runtime.snapshot.item_id(item), vectors.get(item)
        try:
            found = [_scores(runtime, clicks, items, RowChange(name, embedded.get(one))) for one in row]
        finally:
            runtime.apply([RowChange(name, own)])
        drops = found[0][None] - np.stack(found[1:]) if units else np.zeros((0, len(items)), dtype=np.float32)
        effects.append(WordEffects(item, units, drops, _cosine(embedded[text], own)))
    return effects


def _scores(runtime: RankerRuntime, clicks: Indices, items: Indices, change: RowChange) -> Floats:
    """Scores of ``items`` float32 [m] after this change; NaN for what may not be ranked, and where popularity ranks."""
    if runtime.apply([change]):
        raise InputError(
            f"the language model's vector for {change.item_id!r} does not fit the ranker", "take the run's own engine"
        )
    ranking = runtime.snapshot.rank(clicks, max(len(items), 1), candidates=items, include_seen=True)
    scores = np.full(len(items), np.nan, dtype=np.float32)
    if not ranking.fallback:
        known = dict(zip(ranking.indices.tolist(), ranking.scores.tolist(), strict=True))
        scores[:] = [known.get(item, np.nan) for item in items.tolist()]
    return scores


def _cosine(one: npt.NDArray[np.floating], other: npt.NDArray[np.floating] | None) -> float:
    if other is None:
        return float("nan")
    a, b = one.astype(np.float64), other.astype(np.float64)
    return float(a @ b) / max(float(np.linalg.norm(a)) * float(np.linalg.norm(b)), 1e-12)


def strongest_units(effects: Sequence[WordEffects], number: int, count: int) -> list[tuple[int, TextUnit, float]]:
    """The words and attributes whose removal costs item ``number`` the most: whose text, which, drop of the score."""
    found = [
        (one.item, unit, float(drop))
        for one in effects
        for unit, drop in zip(one.units, one.drops[:, number], strict=True)
        if unit.kind != "text" and np.isfinite(drop) and drop > 0
    ]
    return sorted(found, key=lambda entry: -entry[2])[:count]
