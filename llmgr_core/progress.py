"""Telling a person, or a machine, how a long step is getting on.

On a terminal: progress bars and short lines. Elsewhere, or with ``--json``: one JSON object a line on standard error, so that a
log can be followed and parsed. Results go to standard output and never through here.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Element = TypeVar("Element")
SECONDS_BETWEEN_LINES = 5.0


class Advance(Protocol):
    """Moves a bar: ``advance(steps, **figures)``; the figures (loss, items/s) stand beside it."""

    def __call__(self, steps: int = 1, **figures: float | int | str) -> None: ...


class Reporter:
    """Where a step reports to.

    Args:
        as_json: JSON lines; by default just where standard error is not a terminal.
    """

    def __init__(self, as_json: bool | None = None) -> None:
        self.as_json = not sys.stderr.isatty() if as_json is None else as_json
        self._console = Console(stderr=True, highlight=False)

    def event(self, name: str, **fields: Any) -> None:
        """Report one fact, for example ``event("epoch", number=3, loss=5.2)``."""
        if self.as_json:
            line = {"time": round(time.time(), 3), "event": name, **fields}
            print(json.dumps(line, ensure_ascii=False, default=str), file=sys.stderr, flush=True)
        else:
            text = "  ".join(f"{key} {_short(value)}" for key, value in fields.items())
            self._console.print(f"[bold]{name}[/bold]  {text}" if text else f"[bold]{name}[/bold]", soft_wrap=True)

    @contextmanager
    def bar(self, description: str, total: int | None) -> Iterator[Advance]:
        """A bar of ``total`` steps; call what it yields to move it."""
        if self.as_json:
            yield _LineBar(self, description, total)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(description, total=total, figures="")

            def advance(steps: int = 1, **figures: float | int | str) -> None:
                progress.update(task, advance=steps, figures="  ".join(f"{k} {_short(v)}" for k, v in figures.items()))

            yield advance

    def track(self, elements: Iterable[Element], description: str, total: int | None = None) -> Iterator[Element]:
        """Iterate under a bar."""
        if total is None and isinstance(elements, Sized):
            total = len(elements)
        with self.bar(description, total) as advance:
            for element in elements:
                yield element
                advance()


class _LineBar:
    """A bar as JSON lines: at most one every few seconds, and one at the end."""

    def __init__(self, reporter: Reporter, description: str, total: int | None) -> None:
        self._reporter, self._description, self._total = reporter, description, total
        self._done = 0
        self._started = self._last = time.monotonic()

    def __call__(self, steps: int = 1, **figures: float | int | str) -> None:
        self._done += steps
        now = time.monotonic()
        if now - self._last >= SECONDS_BETWEEN_LINES or self._done == self._total:
            self._last = now
            seconds = round(now - self._started, 2)
            self._reporter.event(
                "progress", step=self._description, done=self._done, total=self._total, seconds=seconds, **figures
            )


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
