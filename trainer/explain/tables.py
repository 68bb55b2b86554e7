"""Explanations as tables for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from llmgr_core.explanation.word_effects import strongest_units
from trainer.explain.neighbourhood import MEANINGS, TRANSITIONS, Neighbourhood
from trainer.explain.records import ExplainedSession

if TYPE_CHECKING:
    from trainer.explain.explained_run import ExplainedRun

TITLE_WIDTH = 64
SHOWN_ITEMS = 5
SHOWN_CLICKS = 20
SHOWN_WORDS = 6
FEW_CLICKS = 10


def neighbourhood_tables(run: ExplainedRun, found: Neighbourhood) -> Iterator[RenderableType]:
    """The item, its neighbours by each space, and how far the lists agree."""
    yield _line(f"{run.item_id(found.item)}  {run.title(found.item)}", bold=True)
    yield _line(f"{run.training_clicks(found.item):,} training clicks.  Text: {run.text(found.item).text or 'none'}")
    names = list(found.views)
    for name, view in found.views.items():
        if view.neighbours is None:
            yield _line(f"\n{name}: the item has none ({MEANINGS[name]})")
            continue
        measure = "strength" if name == TRANSITIONS else "cosine"
        table = _table(f"{name}: {MEANINGS[name]}", [measure, "clicks", "together", "item", "title", "also near by"], left=4)
        nearest, together = view.neighbours, view.together.tolist()
        for item, similarity, count in zip(nearest.items.tolist(), nearest.similarities.tolist(), together, strict=True):
            also = [other for other in names if other != name and _holds(found, other, item)]
            numbers = f"{similarity:.3f}", f"{run.training_clicks(item):,}", f"{count:,}"
            table.add_row(*numbers, Text(run.item_id(item)), _title(run, item), ", ".join(also))
        yield table
    yield _line("clicks: training clicks of the neighbour; together: training sessions that hold it and the item", dim=True)
    yield _agreement(found, names)


def session_tables(run: ExplainedRun, found: ExplainedSession) -> Iterator[RenderableType]:
    """The ranking with its parts, what each click does, and what words do."""
    one = found.explanation
    if one.parts is None:
        yield _line("By popularity: no click of the session has an ID vector or a text, so that there is nothing to encode.")
    yield _ranking(run, found)
    if one.parts is None:
        return
    yield from _summary(run, found)
    shown = list(range(min(SHOWN_ITEMS, len(one.items))))
    if found.target is not None and (place := int(np.flatnonzero(one.items == found.target)[0])) not in shown:
        shown.append(place)
    yield _clicks(run, found, shown)
    yield _line(f"attention: {one.attention.meaning}. It is what the encoder looks at; the losses are what a click does.")
    yield _transitions(run, found, shown)
    if found.words is not None:
        yield from _words(run, found, shown)


def _ranking(run: ExplainedRun, found: ExplainedSession) -> Table:
    one = found.explanation
    columns = ["rank", "p", "score", "= ID", "+ text", "+ transitions", "clicks", "item", "title", "most by"]
    table = _table("What may be clicked next, and what its score is made of", columns, left=7)
    for number, item in enumerate(one.items.tolist()):
        rank = int(one.placement.ranks[number])
        parts = ["", "", ""]
        if one.parts is not None:
            parts = [_signed(values[number]) for values in (one.parts.id, one.parts.text, one.parts.transitions)]
        title = _title(run, item)
        if item == found.target:
            title = Text("clicked next: ", style="bold") + title
        table.add_row(
            str(rank) if rank else "never",
            f"{one.placement.probabilities[number]:.4f}",
            _signed(one.placement.scores[number]),
            *parts,
            f"{run.training_clicks(item):,}",
            Text(run.item_id(item)),
            title,
            _most_by(found, number),
        )
    if one.average is not None:
        average = one.average
        values = [_signed(part[0]) for part in (average.score, average.id, average.text, average.transitions)]
        table.add_row("", "", *values, "", "", Text("(an average item)", style="dim"), "", style="dim")
    return table


def _summary(run: ExplainedRun, found: ExplainedSession) -> Iterator[Text]:
    """In words: what carries the items on the whole."""
    one = found.explanation
    best = np.flatnonzero(one.placement.ranks == np.arange(len(one.items)) + 1)
    assert one.parts is not None
    assert one.average is not None
    if not len(best):
        return
    named = {"ID": (one.parts.id, one.average.id), "text": (one.parts.text, one.average.text)}
    named["transitions"] = one.parts.transitions, one.average.transitions
    above = ", ".join(f"{_signed((part[best] - average[0]).mean())} {name}" for name, (part, average) in named.items())
    yield _line(f"\nThe {len(best)} best stand above an average item, in the mean, by {above}.")
    strongest = {int(number): one.strongest_click(int(number)) for number in best}
    carrying = Counter(click for click in strongest.values() if click is not None)
    if carrying and len(one.clicks) > 1:
        click, count = carrying.most_common(1)[0]
        ranks = one.without.ranks[click, [number for number, carried in strongest.items() if carried == click]]
        title = run.title(int(one.clicks[click]))[:TITLE_WIDTH]
        reached = f"rank {ranks[0]:,}" if ranks.min() == ranks.max() else f"ranks {ranks.min():,} to {ranks.max():,}"
        yield _line(f"Click {click + 1}, {title}, carries {count} of them: without it they would stand at {reached}.")


def _most_by(found: ExplainedSession, number: int) -> str:
    one = found.explanation
    strongest = one.strongest_click(number)
    if strongest is None:
        return "no single click"
    rank = int(one.without.ranks[strongest, number])
    return f"click {strongest + 1} (without it: {rank:,})"


def _clicks(run: ExplainedRun, found: ExplainedSession, shown: list[int]) -> Table:
    one = found.explanation
    columns = ["click", "attention", *(_place(found, number) for number in shown), "title"]
    table = _table("Without each click: what the score loses (and the rank it would have)", columns, left=len(columns) - 1)
    for click in _worth_showing(found):
        share = one.attention_shares[click]
        cells = []
        for number in shown:
            drop, rank = one.score_drops[click, number], int(one.without.ranks[click, number])
            cells.append(f"popularity ({rank:,})" if one.without.fallback[click] else f"{_signed(drop)} ({rank:,})")
        attention = "" if np.isnan(share) else f"{100 * share:.0f} %"
        table.add_row(str(click + 1), attention if one.read[click] else "not read", *cells, _title(run, int(one.clicks[click])))
    if len(one.clicks) > SHOWN_CLICKS:
        table.caption = f"{SHOWN_CLICKS} of {len(one.clicks)} clicks, those that change the most; --json has all"
    return table


def _transitions(run: ExplainedRun, found: ExplainedSession, shown: list[int]) -> RenderableType:
    one = found.explanation
    columns = ["click", *(_place(found, number) for number in shown), "title"]
    table = _table(
        "Transitions: what each click adds (and the training sessions in which the item came after it)",
        columns,
        left=len(columns) - 1,
    )
    for click in _worth_showing(found):
        added, seen = one.transition_shares[click, shown], found.followed[click, shown]
        if (added >= 0.005).any() or (seen.any() and len(one.clicks) <= FEW_CLICKS):
            cells = [f"{_signed(value)} ({count:,})" for value, count in zip(added, seen, strict=True)]
            table.add_row(str(click + 1), *cells, _title(run, int(one.clicks[click])))
    if not table.row_count:
        return _line("\nTransitions: no click leads to any of these items.")
    table.caption = "(0) with something added: borrowed from items with a like text"
    return table


def _words(run: ExplainedRun, found: ExplainedSession, shown: list[int]) -> Iterator[RenderableType]:
    one = found.explanation
    assert found.words is not None
    yield _whole_texts(run, found, shown)
    for number in shown:
        item = int(one.items[number])
        table = _table(
            f"Words that carry {_place(found, number)} {run.title(item)[:TITLE_WIDTH]}",
            ["score", "word", "in the text of"],
            left=1,
        )
        for owner, unit, drop in strongest_units(found.words, number, SHOWN_WORDS):
            where = Text("its own") if owner == item else Text(f"click {_clicks_of(found, owner)}: ") + _title(run, owner)
            table.add_row(_signed(drop), Text(unit.label), where)
        yield table if table.row_count else _line(f"\nNo word carries {_place(found, number)} {run.title(item)[:TITLE_WIDTH]}")
    for effects in found.words:
        if effects.agreement < 0.99:
            yield _line(f"{run.item_id(effects.item)}: its vector was made of another text than the one here (edited since?)")
    for item in found.without_text:
        yield _line(f"{run.item_id(item)} {run.title(item)[:TITLE_WIDTH]}: has no text, so no word carries anything")


def _whole_texts(run: ExplainedRun, found: ExplainedSession, shown: list[int]) -> Table:
    one = found.explanation
    assert found.words is not None
    columns = ["text of", *(_place(found, number) for number in shown), "title"]
    table = _table("Without a whole text: what the score loses", columns, left=len(columns) - 1)
    whole = {effects.item: effects.drops[0] for effects in found.words if len(effects.units)}
    own = [whole[item][number] if (item := int(one.items[number])) in whole else np.nan for number in shown]
    table.add_row("itself", *(_signed(drop) for drop in own), "")
    for item, drops in whole.items():
        if clicks := _clicks_of(found, item):
            table.add_row(f"click {clicks}", *(_signed(drop) for drop in drops[shown]), _title(run, item))
    return table


def _agreement(found: Neighbourhood, names: list[str]) -> Table:
    present = [name for name in names if found.views[name].neighbours is not None]
    alike = [
        ("same category", "same_category", found.chance_category),
        ("same brand", "same_brand", found.chance_brand),
    ]
    told = [entry for entry in alike if entry[2] is not None]
    columns = ["", *(title for title, _, _ in told), *present]
    table = _table("How far the lists agree: neighbours alike the item, neighbours shared", columns, left=0)
    for name in present:
        shares = [_share(getattr(found.views[name], key)) for _, key, _ in told]
        shared = [
            "" if other == name else str(found.shared.get((name, other), found.shared.get((other, name)))) for other in present
        ]
        table.add_row(Text(name), *shares, *shared)
    table.add_row(Text("(any item)", style="dim"), *(f"{100 * (chance or 0.0):.1f} %" for _, _, chance in told), style="dim")
    return table


def _worth_showing(found: ExplainedSession) -> list[int]:
    """All clicks, or those that change the scores the most, in click order."""
    one = found.explanation
    if len(one.clicks) <= SHOWN_CLICKS:
        return list(range(len(one.clicks)))
    change = np.nan_to_num(np.abs(one.score_drops)).max(axis=1)
    return sorted(np.argsort(-change, kind="stable")[:SHOWN_CLICKS].tolist())


def _holds(found: Neighbourhood, name: str, item: int) -> bool:
    neighbours = found.views[name].neighbours
    return neighbours is not None and item in neighbours.items


def _clicks_of(found: ExplainedSession, item: int) -> str:
    return ", ".join(str(place + 1) for place in np.flatnonzero(found.explanation.clicks == item).tolist())


def _place(found: ExplainedSession, number: int) -> str:
    rank = int(found.explanation.placement.ranks[number])
    return f"#{rank:,}" if rank else "(never ranked)"


def _title(run: ExplainedRun, item: int) -> Text:
    # Text: titles are the catalogue's own and may look like markup.
    return Text(run.title(item)[:TITLE_WIDTH])


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def _signed(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:+.2f}"


def _line(text: str, bold: bool = False, dim: bool = False) -> Text:
    return Text(text, style="bold" if bold else "dim" if dim else "")


def _table(title: str, columns: list[str], left: int) -> Table:
    """A table whose columns from place ``left`` on hold words; those before it hold numbers."""
    table = Table(
        box=None, pad_edge=False, title=Text("\n" + title, style="bold"), title_justify="left", caption_justify="left"
    )
    for place, name in enumerate(columns):
        words = (place >= left) if left else place == 0
        table.add_column(Text(name), justify="left" if words else "right", no_wrap=not words)
    return table
