"""Click sessions to measure with: of real data where there is some, else drawn from published figures."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kernels.session_graph import SessionGraph, build_session_graph

Ints = npt.NDArray[np.int64]
FILES = ("train_sessions.jsonl.gz", "sessions.jsonl.gz")
LONGEST = 200
# Diginetica, in Table 1 of SR-GNN (Wu et al. 2019): sessions of 5.12 clicks in the mean, none of one click.
PUBLISHED_MEAN = 5.12
PUBLISHED_ITEMS = 43_097


@dataclass
class SessionSource:
    """Draws sessions.

    - ``data``: whole sessions of a file below the directory that ``LLMGR_DATA`` names, drawn at random: their lengths, repeats
      and item popularity are the data's.
    - ``published``: 2 clicks and then a geometric number more, 5.12 in the mean as in Diginetica (SR-GNN, Table 1); popularity
      falls with rank as 1/rank (Zipf); a click in five goes back to an earlier item of its session.
    - ``even``: lengths drawn evenly from 3 to 20, the grid of the targets; popularity and returns as above.

    Attributes:
        kind: one of the three.
        name: for the report.
        clicks: int64, items of all sessions of the data, numbered from 0.
        offsets: int64, first click of each session.
    """

    kind: str
    name: str
    clicks: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    offsets: Ints = field(default_factory=lambda: np.zeros(1, dtype=np.int64))

    def draw(self, num_sessions: int, seed: int = 0) -> tuple[Ints, Ints]:
        """(items [T], offsets [B + 1]) of so many sessions, the same for the same seed."""
        random = np.random.default_rng(seed)
        if self.kind == "data":
            chosen = random.integers(0, len(self.offsets) - 1, num_sessions)
            starts, lengths = self.offsets[chosen], np.diff(self.offsets)[chosen]
            offsets = _offsets(lengths)
            places: Ints = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
            drawn: Ints = self.clicks[places]
            return drawn, offsets
        if self.kind == "even":
            lengths = random.integers(3, 21, num_sessions)
        else:
            lengths = np.minimum(1 + random.geometric(1.0 / (PUBLISHED_MEAN - 1.0), num_sessions), LONGEST)
        offsets = _offsets(lengths)
        items = popular_items(random, PUBLISHED_ITEMS, int(offsets[-1]))
        place = np.arange(len(items)) - np.repeat(offsets[:-1], lengths)
        back = np.flatnonzero((random.random(len(items)) < 0.2) & (place > 0))
        items[back] = items[back - 1 - random.integers(0, place[back])]
        return items, offsets

    def graph(self, num_sessions: int, seed: int = 0) -> SessionGraph:
        """Their session graph, on the CPU."""
        return build_session_graph(*self.draw(num_sessions, seed)).graph


def popular_items(random: np.random.Generator, num_items: int, size: int) -> Ints:
    """Items drawn with a probability that falls as 1/rank."""
    # The inverse of the continuous distribution function, log(1 + rank) / log(1 + items).
    ranks: Ints = np.expm1(random.random(size) * np.log1p(num_items)).astype(np.int64)
    ranks[ranks >= num_items] = num_items - 1
    return ranks


def session_source(kind: str, directory: str | None) -> SessionSource:
    """The source that was asked for; ``auto`` takes real data where the directory has some.

    Raises:
        ValueError: ``data`` is wanted and there is none.
    """
    files = [path for name in FILES for path in sorted(Path(directory).glob(f"**/{name}"))] if directory else []
    if kind == "data" and not files:
        raise ValueError(f"LLMGR_DATA={directory!r} holds no {' or '.join(FILES)}")
    if kind in ("auto", "data") and files:
        return _read(files[0])
    if kind == "even":
        return SessionSource("even", "lengths drawn evenly from 3 to 20")
    return SessionSource("published", f"drawn with Diginetica's published mean length {PUBLISHED_MEAN}")


def _read(path: Path) -> SessionSource:
    numbers: dict[str | int, int] = {}
    clicks: list[int] = []
    lengths: list[int] = []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            items = json.loads(line)["items"][-LONGEST:]
            if items:
                clicks += [numbers.setdefault(item, len(numbers)) for item in items]
                lengths.append(len(items))
    name = f"sessions of {path.parent.name}"
    return SessionSource("data", name, np.array(clicks, dtype=np.int64), _offsets(np.array(lengths, dtype=np.int64)))


def _offsets(lengths: Ints) -> Ints:
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
