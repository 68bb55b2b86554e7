"""Explanations as pictures: bars of the neighbours, and a heat map of clicks against recommended items."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llmgr_core.errors import InputError
from llmgr_core.evaluation.drawing import svg_figure
from trainer.explain.neighbourhood import TRANSITIONS, Neighbourhood
from trainer.explain.records import ExplainedSession

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from trainer.explain.explained_run import ExplainedRun

FORMATS = (".svg", ".png")
DOTS_PER_INCH = 144
TITLE_WIDTH = 44
SHOWN_CLICKS = 20
# Nine of matplotlib's own (grey left out) and their light forms.
COLOURS = [f"C{number}" for number in (0, 1, 2, 3, 4, 5, 6, 8, 9)]
COLOURS += ["#aec7e8", "#ffbb78", "#98df8a", "#ff9896", "#c5b0d5", "#c49c94", "#f7b6d2", "#dbdb8d", "#9edae5"]
BARS = {"id": "C0", "text": "C1", "transitions": "C2"}


def require_format(path: Path) -> None:
    """Refuse, before any work, a picture that nothing here draws.

    Raises:
        InputError: another ending than .svg and .png, or matplotlib is not installed.
    """
    from importlib.util import find_spec

    if path.suffix.lower() not in FORMATS:
        raise InputError(
            f"--plot {path}: no picture of the kind {path.suffix or 'without an ending'!r}", "end it in .svg or .png"
        )
    if find_spec("matplotlib") is None:
        raise InputError("--plot needs matplotlib, which is not installed", "pip install 'llmgr[plots]'")


def plot_neighbourhood(run: ExplainedRun, found: Neighbourhood, path: Path) -> None:
    """One panel of bars a space; a neighbour has the same colour in every panel, grey where it is in one list alone.

    There are as many colours as an eye can tell apart; of more shared items, those in the fewest lists stay white.
    """
    views = {name: view.neighbours for name, view in found.views.items() if view.neighbours is not None}
    everywhere = [item for neighbours in views.values() for item in neighbours.items.tolist()]
    shared = sorted(
        (item for item in dict.fromkeys(everywhere) if everywhere.count(item) > 1), key=lambda one: -everywhere.count(one)
    )
    colours = dict.fromkeys(shared, "white") | dict(zip(shared, COLOURS, strict=False))
    most = max((len(neighbours) for neighbours in views.values()), default=1)

    def draw(figure: Figure) -> None:
        figure.suptitle(f"{run.item_id(found.item)}  {_short(run.title(found.item), 90)}")
        panels = np.atleast_1d(figure.subplots(-(-len(views) // 2), 2)).flatten()
        for axes in panels[len(views) :]:
            axes.set_axis_off()
        for axes, (name, neighbours) in zip(panels, views.items(), strict=False):
            items = neighbours.items.tolist()
            places = np.arange(len(items))
            axes.barh(places, neighbours.similarities, color=[colours.get(item, "0.8") for item in items], edgecolor="0.5")
            axes.set_yticks(places, [_short(run.title(item) or run.item_id(item)) for item in items], fontsize=7)
            axes.set_ylim(most - 0.5, -0.5)
            axes.set_title(name)
            axes.set_xlabel("strength" if name == TRANSITIONS else "cosine")
        figure.supxlabel("one colour: the same item in several lists; grey: in this list alone", fontsize=8)

    _save(path, (13.0, 0.6 + -(-len(views) // 2) * (0.9 + 0.22 * most)), draw)


def plot_session(run: ExplainedRun, found: ExplainedSession, path: Path) -> None:
    """Left: what the score of each item loses without each click. Right: the parts of each score, stacked.

    Raises:
        InputError: the session is ranked by popularity, so that there is nothing to draw.
    """
    one = found.explanation
    if one.parts is None:
        raise InputError("no click of this session can be encoded: there is nothing to draw", "leave --plot out")
    clicks = np.arange(len(one.clicks))[-SHOWN_CLICKS:]
    drops = one.score_drops[clicks].T
    named = zip(one.placement.ranks, one.items, strict=True)
    labels = [f"{rank or 'never'}. {_short(run.title(int(item)))}" for rank, item in named]

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(max(len(clicks), 3), 5))
        _heat_map(left, drops)
        left.set_yticks(range(len(labels)), labels, fontsize=8)
        titles = [f"{click + 1}. {_short(run.title(int(one.clicks[click])), 28)}" for click in clicks]
        left.set_xticks(range(len(clicks)), titles, rotation=40, ha="right", fontsize=8)
        left.set_title("score lost without each click")
        _stacked(right, found)
        figure.suptitle("What carried the recommendations")

    _save(path, (6.5 + 0.75 * max(len(clicks), 3), 2.6 + 0.34 * len(labels)), draw)


def _heat_map(axes: Axes, drops: np.ndarray) -> None:
    finite = np.abs(drops[np.isfinite(drops)])
    limit = float(finite.max()) if len(finite) else 1.0
    axes.imshow(np.nan_to_num(drops), cmap="RdBu_r", vmin=-max(limit, 1e-6), vmax=max(limit, 1e-6), aspect="auto")
    for (row, column), drop in np.ndenumerate(drops):
        dark = np.isfinite(drop) and abs(drop) > 0.6 * limit
        text = f"{drop:+.1f}" if np.isfinite(drop) else "all"
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")


def _stacked(axes: Axes, found: ExplainedSession) -> None:
    parts = found.explanation.parts
    assert parts is not None
    places = np.arange(len(parts.id))
    above, below = np.zeros(len(places)), np.zeros(len(places))
    for (name, colour), values in zip(BARS.items(), (parts.id, parts.text, parts.transitions), strict=True):
        start = np.where(values >= 0, above, below)
        axes.barh(places, values, left=start, color=colour, label="ID" if name == "id" else name, height=0.7)
        above, below = above + np.maximum(values, 0.0), below + np.minimum(values, 0.0)
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.set_title("parts of the score")
    axes.tick_params(labelleft=False)
    axes.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3)


def _save(path: Path, size: tuple[float, float], draw: Callable[[Figure], None]) -> None:
    try:
        _write(path, size, draw)
    except OSError as error:
        raise InputError(f"--plot {path} cannot be written: {error.strerror}", "name another place") from None


def _write(path: Path, size: tuple[float, float], draw: Callable[[Figure], None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".svg":
        with svg_figure(size) as (figure, written):
            draw(figure)
        path.write_text(written(), encoding="utf-8")
        return
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context({"font.size": 9}):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        figure.savefig(path, dpi=DOTS_PER_INCH)


def _short(title: str, width: int = TITLE_WIDTH) -> str:
    # A dollar sign would start matplotlib's formulas.
    kept = title if len(title) <= width else title[: width - 1] + "…"
    return kept.replace("$", r"\$")
