"""MovieLens-100K from the recbole wheel, in the project's data format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmgr_core.downloads.data_format import ITEMS_NAME, SESSIONS_NAME, write_lines
from llmgr_core.downloads.wheels import RECBOLE, fetched_wheel, unpack

MEMBERS = {f"recbole/dataset_example/ml-100k/ml-100k.{kind}": f"ml-100k.{kind}" for kind in ("item", "inter")}
# Genres of MovieLens hold no space, but the file separates them by one: "Children's", "Sci-Fi" and "Film-Noir" stay whole.
NO_GENRE = "unknown"
SOURCE_TEXT = """# MovieLens-100K
100,000 ratings of 1,682 films by 943 people (GroupLens, University of Minnesota), taken from the wheel {wheel}.
Every person's ratings in order of time are one session. Use and citation: https://grouplens.org/datasets/movielens/100k/
(F. M. Harper, J. A. Konstan, "The MovieLens Datasets: History and Context", 2015); not for commercial use without permission.
"""


def write_movielens(directory: Path) -> None:
    """Download, verify and convert.

    Raises:
        InputError: the wheel cannot be fetched or is not the expected one.
    """
    with fetched_wheel(RECBOLE) as wheel:
        raw = wheel.parent
        unpack(wheel, MEMBERS, raw)
        write_lines(directory / ITEMS_NAME, film_items(raw / "ml-100k.item"))
        write_lines(directory / SESSIONS_NAME, person_sessions(raw / "ml-100k.inter"))
    (directory / "SOURCE.md").write_text(SOURCE_TEXT.format(wheel=RECBOLE.requirement), encoding="utf-8")


def film_items(path: Path) -> Iterator[dict[str, Any]]:
    """Items: the year stands behind the title, as in "Toy Story (1995)"; every genre is a category path of one step."""
    for row in _rows(path):
        title, year = row["movie_title"].strip(), row["release_year"].strip()
        known = title != "unkonwn"  # the file's own spelling
        genres = [genre for genre in row["class"].split() if genre != NO_GENRE]
        yield {
            "item_id": row["item_id"],
            "title": (f"{title} ({year})" if year.isdigit() else title) if known else None,
            "description": None,
            "brand": None,
            "category": [[genre] for genre in genres],
        }


def person_sessions(path: Path) -> Iterator[dict[str, Any]]:
    """Sessions, one a person, by time; ratings of the same second stay in the order of the file."""
    clicks: dict[str, list[tuple[int, str]]] = {}
    for row in _rows(path):
        clicks.setdefault(row["user_id"], []).append((int(float(row["timestamp"])), row["item_id"]))
    for person in sorted(clicks, key=int):
        ordered = sorted(clicks[person], key=lambda click: click[0])
        yield {
            "session_id": person,
            "items": [item for _, item in ordered],
            "timestamps": [time for time, _ in ordered],
        }


def _rows(path: Path) -> Iterator[dict[str, str]]:
    """Rows of a RecBole atomic file by column name, the type after the colon left out."""
    with path.open(encoding="utf-8", newline="") as stream:
        names = [name.partition(":")[0] for name in next(stream).rstrip("\r\n").split("\t")]
        for line in stream:
            yield dict(zip(names, line.rstrip("\r\n").split("\t"), strict=True))
