"""Rows that cannot be used: what is wrong with them, how many there are, where the first ones stand."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from llmgr_core.errors import InputError

QUOTED_ROWS = 3
QUOTED_CHARACTERS = 160


class BadRow(StrEnum):
    """What can be wrong with a row."""

    MISSING_ID = "missing id"
    DUPLICATE_ID = "duplicate id"
    UNKNOWN_ITEM = "unknown item"
    BROKEN_ROW = "broken row"
    WRONG_TYPE = "wrong type"
    NOT_A_NUMBER = "NaN"
    NUL = "NUL character"
    INVALID_UTF8 = "invalid UTF-8"
    EMPTY_SESSION = "empty session"


class RowError(Exception):
    """One row cannot be used.

    Args:
        kind: what is wrong.
        detail: which value, in words.
    """

    def __init__(self, kind: BadRow, detail: str) -> None:
        super().__init__(detail)
        self.kind, self.detail = kind, detail


@dataclass
class BadRows:
    """Account of one input file.

    Attributes:
        path: the file.
        policy: "skip" counts, "fail" raises at the first bad row.
        max_share: largest share of bad rows, and of clicks on unknown items, that ``close`` accepts.
        rows: rows seen, good and bad.
        clicks: clicks seen in good rows, on known and unknown items.
        counts: bad rows by kind; for UNKNOWN_ITEM: clicks.
        quotes: the first rows of each kind, "FILE:LINE: kind (detail): text".
    """

    path: Path
    policy: Literal["skip", "fail"] = "skip"
    max_share: float = 1.0
    rows: int = 0
    clicks: int = 0
    counts: Counter[BadRow] = field(default_factory=Counter)
    quotes: dict[BadRow, list[str]] = field(default_factory=dict)

    def add(self, kind: BadRow, line: int, text: str, detail: str = "") -> None:
        """Count one bad row.

        Raises:
            InputError: the policy is "fail".
        """
        self.counts[kind] += 1
        quotes = self.quotes.setdefault(kind, [])
        if self.policy == "skip" and len(quotes) >= QUOTED_ROWS:
            return
        quote = f"{self.path}:{line}: {kind}{f' ({detail})' if detail else ''}: {_shown(text)}"
        if self.policy == "fail":
            raise InputError(quote, "correct the row, or set data.bad_rows=skip to leave such rows out")
        quotes.append(quote)

    def wants_quote(self, kind: BadRow) -> bool:
        """Whether ``add`` would quote or raise; otherwise ``count`` does, and is faster."""
        return self.policy == "fail" or len(self.quotes.get(kind, ())) < QUOTED_ROWS

    def count(self, kind: BadRow, number: int) -> None:
        """Count bad rows without quoting them."""
        self.counts[kind] += number

    @property
    def total(self) -> int:
        """Everything counted."""
        return sum(self.counts.values())

    def close(self) -> None:
        """Judge the whole file.

        Raises:
            InputError: no row at all, no good row, or too large a share of bad ones.
        """
        if self.rows == 0:
            raise InputError(f"{self.path} holds no rows", "check the path")
        unknown = self.counts[BadRow.UNKNOWN_ITEM]
        bad = self.total - unknown
        share = max(bad / self.rows, unknown / self.clicks if self.clicks else 0.0)
        if share > self.max_share or bad == self.rows:
            quotes = "\n  ".join(quote for kind in self.quotes.values() for quote in kind[:1])
            raise InputError(
                f"{share:.1%} of {self.path} cannot be used ({self._in_words()}):\n  {quotes}",
                f"correct the file, or raise data.max_bad_share (now {self.max_share})",
            )

    def summary(self) -> dict[str, Any]:
        """JSON form: rows, counts by kind, first quotes."""
        return {
            "file": self.path.name,
            "rows": self.rows,
            "clicks": self.clicks,
            "bad": {str(kind): number for kind, number in self.counts.items()},
            "first": [quote for kind in self.quotes.values() for quote in kind],
        }

    def _in_words(self) -> str:
        return ", ".join(f"{kind}: {number:,}" for kind, number in self.counts.most_common())


def _shown(text: str) -> str:
    shown = text[:QUOTED_CHARACTERS].encode("unicode_escape", "backslashreplace").decode("ascii") if _is_odd(text) else text
    return shown[:QUOTED_CHARACTERS] + ("..." if len(shown) > QUOTED_CHARACTERS or len(text) > QUOTED_CHARACTERS else "")


def _is_odd(text: str) -> bool:
    return not text[:QUOTED_CHARACTERS].isprintable()
