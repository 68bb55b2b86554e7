"""Explanations as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from llmgr_core.explanation.score_parts import ScoreParts
from llmgr_core.explanation.session import SessionExplanation
from llmgr_core.explanation.word_effects import WordEffects
from trainer.explain.neighbourhood import MEANINGS, Neighbourhood

if TYPE_CHECKING:
    from trainer.explain.explained_run import ExplainedRun

DIGITS = 6


@dataclass(frozen=True)
class ExplainedSession:
    """A session's explanation with what the training sessions and the language model say to it.

    Attributes:
        explanation: t clicks, m items.
        followed: int64 [t, m], training sessions in which the item came after the click's item.
        words: effects of words; None where nobody asked.
        target: index of what was clicked next, where the session is an example.
        without_text: items whose words were asked for but who have no text.
    """

    explanation: SessionExplanation
    followed: npt.NDArray[np.int64]
    words: Sequence[WordEffects] | None = None
    target: int | None = None
    without_text: Sequence[int] = field(default_factory=list)


def ranker_record(run: ExplainedRun) -> dict[str, Any]:
    """Which ranker was looked into."""
    description = run.stored.description
    return {
        "path": str(run.artefact.path),
        "variant": description.variant,
        "version": run.artefact.digest,
        "encoder": description.encoder.name,
        "items": run.runtime.snapshot.num_rankable,
    }


def item_record(run: ExplainedRun, index: int) -> dict[str, Any]:
    """One item by name."""
    return {"item_id": run.item_id(index), "title": run.title(index), "training_clicks": run.training_clicks(index)}


def neighbourhood_record(run: ExplainedRun, found: Neighbourhood) -> dict[str, Any]:
    """Everything of a neighbourhood."""
    views = {}
    for name, view in found.views.items():
        entries = None
        if view.neighbours is not None:
            nearest = zip(view.neighbours.items.tolist(), view.neighbours.similarities, view.together.tolist(), strict=True)
            entries = [
                {**item_record(run, index), "similarity": number_or_none(value), "training_sessions_together": together}
                for index, value, together in nearest
            ]
        views[name] = {
            "meaning": MEANINGS[name],
            "neighbours": entries,
            "same_category": number_or_none(view.same_category),
            "same_brand": number_or_none(view.same_brand),
        }
    return {
        "ranker": ranker_record(run),
        "item": {**item_record(run, found.item), "text": run.text(found.item).text},
        "spaces": views,
        "shared": [{"spaces": list(pair), "items": count} for pair, count in found.shared.items()],
        "by_chance": {"same_category": number_or_none(found.chance_category), "same_brand": number_or_none(found.chance_brand)},
    }


def session_record(run: ExplainedRun, found: ExplainedSession) -> dict[str, Any]:
    """Everything of a session's explanation."""
    one = found.explanation
    weights = np.full(len(one.clicks), np.nan, dtype=np.float32)
    if one.attention.weights is not None:
        weights[one.read] = one.attention.weights
    clicks = [
        {
            **item_record(run, int(index)),
            "read_by_encoder": bool(one.read[number]),
            "attention": number_or_none(weights[number]),
            "attention_share": number_or_none(one.attention_shares[number]),
        }
        for number, index in enumerate(one.clicks)
    ]
    return {
        "ranker": ranker_record(run),
        "fallback": one.parts is None,
        "clicks": clicks,
        "attention": one.attention.meaning,
        "items": [_item(run, found, number) for number in range(len(one.items))],
        "average_item": None if one.average is None else _parts(one.average, 0),
        "target": None if found.target is None else run.item_id(found.target),
        "words": None if found.words is None else [_text(run, effects) for effects in found.words],
        "without_text": [run.item_id(index) for index in found.without_text],
    }


def _item(run: ExplainedRun, found: ExplainedSession, number: int) -> dict[str, Any]:
    one = found.explanation
    place, without = one.placement, one.without
    strongest = one.strongest_click(number)
    return {
        "rank": int(place.ranks[number]) or None,
        **item_record(run, int(one.items[number])),
        "probability": number_or_none(place.probabilities[number]),
        "score": number_or_none(place.scores[number]),
        "parts": None if one.parts is None else _parts(one.parts, number),
        "strongest_click": strongest,
        "clicks": [
            {
                "score_drop": number_or_none(one.score_drops[click, number]),
                "rank_without": int(without.ranks[click, number]) or None,
                "probability_without": number_or_none(without.probabilities[click, number]),
                "by_popularity_without": bool(without.fallback[click]),
                "transitions": number_or_none(one.transition_shares[click, number]),
                "training_sessions": int(found.followed[click, number]),
            }
            for click in range(len(one.clicks))
        ],
    }


def _text(run: ExplainedRun, effects: WordEffects) -> dict[str, Any]:
    return {
        "text_of": run.item_id(effects.item),
        "agreement": number_or_none(effects.agreement),
        "units": [
            {"kind": unit.kind, "label": unit.label, "score_drops": [number_or_none(drop) for drop in drops]}
            for unit, drops in zip(effects.units, effects.drops, strict=True)
        ],
    }


def _parts(parts: ScoreParts, number: int) -> dict[str, Any]:
    named = {"id": parts.id, "text": parts.text, "transitions": parts.transitions}
    return {name: number_or_none(values[number]) for name, values in named.items()}


def number_or_none(value: float | np.floating | None) -> float | None:
    """A figure as JSON can write it: rounded, and no NaN."""
    return None if value is None or not math.isfinite(value) else round(float(value), DIGITS)
