"""A matplotlib figure whose SVG text depends on nothing but what is drawn."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextmanager
def svg_figure(size: tuple[float, float]) -> Iterator[tuple[Figure, Callable[[], str]]]:
    """A figure to draw on, and a function that gives its SVG text once the block has ended.

    Args:
        size: width and height in inches.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    # Ids in the file come from a salt, not from the clock; letters stay text, so that a page can be searched.
    with matplotlib.rc_context({"svg.hashsalt": "llmgr", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        yield figure, buffer.getvalue
        figure.savefig(buffer, format="svg", metadata={"Date": None})
