"""Which items somebody may have meant who gave an id that nobody knows."""

from __future__ import annotations

import difflib
from bisect import bisect_left
from collections.abc import Sequence

MOST_COMPARED = 2000


def nearest_ids(wanted: str, ids: Sequence[str], count: int = 3) -> list[str]:
    """Known ids that are spelt like ``wanted``, the likest first.

    Those in other case or with other blanks around first; then by likeness among the ids beside ``wanted`` in order, and all
    of them in a small catalogue.
    """
    folded = wanted.strip().casefold()
    same = [one for one in ids if one.casefold() == folded]
    ordered = sorted(ids)
    place = bisect_left(ordered, wanted)
    near = (
        ordered if len(ordered) <= MOST_COMPARED else ordered[max(place - MOST_COMPARED // 2, 0) : place + MOST_COMPARED // 2]
    )
    alike = difflib.get_close_matches(wanted, near, n=count, cutoff=0.6)
    return list(dict.fromkeys([*same, *alike]))[:count]


def with_words(words: str, titles: Sequence[str | None], count: int = 3) -> list[int]:
    """Indices of the first items whose title holds every one of these words, in any case."""
    wanted = words.casefold().split()
    if not wanted:
        return []
    found = []
    for index, title in enumerate(titles):
        if title is not None and all(word in title.casefold() for word in wanted):
            found.append(index)
            if len(found) == count:
                break
    return found
