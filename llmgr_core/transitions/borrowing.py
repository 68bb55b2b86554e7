"""Transitions that items without a training click borrow from items with some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from llmgr_core.sessions import Sessions
from llmgr_core.settings.transitions import TransitionSettings
from llmgr_core.transitions.graph import TransitionGraph
from llmgr_core.transitions.lookup import Row, sum_by_item

if TYPE_CHECKING:
    import torch

GATHERED_AT_ONCE = 8_000_000
# A table of all items is quicker than picking the loans of what was found while there are not so many times as many of them.
TABLE_SHARE = 16


@dataclass(frozen=True)
class Loan:
    """From whom one item borrows.

    Attributes:
        lenders: int64 [m], items of the graph, ascending; none where no text is near.
        shares: float32 [m], adding up to 1.
    """

    lenders: npt.NDArray[np.int64]
    shares: npt.NDArray[np.float32]


@dataclass(frozen=True)
class BorrowedTransitions:
    """A transition graph, and items beside it that have no transitions of their own. Immutable.

        t(s, v) = alpha sum_u S[v, u] t(s, u)        for a borrower v: what leads to its lenders leads to it
        W[a, b] = beta sum_u S[a, u] W[u, b]         for a borrower a: where its lenders lead, it leads

    t is linear in W, so that the first needs no edge of v: an item costs the numbers of its loan, and a request looks only at
    the borrowers of what its clicks lead to. Of each borrowed row the ``text_kept`` heaviest edges stay.

    Attributes:
        graph: transitions of the lenders; a borrower has no edge in it.
        rows: the borrowed row of each borrower, by item index.
        lender, borrower, share: int64, int64, float32 [E], every loan's entries, by lender and then borrower.
    """

    graph: TransitionGraph
    rows: Mapping[int, Row] = field(default_factory=dict)
    lender: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    borrower: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    share: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    _first: npt.NDArray[np.int64] = field(init=False, repr=False)
    _borrowers: npt.NDArray[np.int32] = field(init=False, repr=False)
    _column: npt.NDArray[np.int64] = field(init=False, repr=False)
    _weight: npt.NDArray[np.float32] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """What a request would otherwise search for: entries of each lender from ``_first``, and whose each of them is."""
        first = np.concatenate([[0], np.cumsum(np.bincount(self.lender, minlength=self.num_items))])
        borrows = np.zeros(self.borrower.max(initial=-1) + 1, dtype=np.int64)
        borrows[self.borrower] = 1
        borrowers, column = np.flatnonzero(borrows).astype(np.int32), (np.cumsum(borrows) - 1)[self.borrower]
        weight = self.share * np.float32(self.settings.text_new_targets)
        for name, value in (("_first", first), ("_borrowers", borrowers), ("_column", column), ("_weight", weight)):
            object.__setattr__(self, name, value)

    @property
    def settings(self) -> TransitionSettings:
        return self.graph.settings

    @property
    def num_items(self) -> int:
        """Items of the graph; borrowers may lie beyond them."""
        return self.graph.num_items

    def with_loans(self, loans: Mapping[int, Loan | None]) -> BorrowedTransitions:
        """With these loans, in place of what the items borrowed so far; None ends an item's borrowing.

        Costs a copy of all loans (20 entries an item) and a sort of the new ones.
        """
        if not loans:
            return self
        rows = dict(self.rows)
        for item, loan in loans.items():
            rows.pop(item, None)
            if loan is not None:
                rows[item] = self._borrowed_row(item, loan)
        lender, borrower, share = self.lender, self.borrower, self.share
        if any(item in self.rows for item in loans):
            stays = ~np.isin(borrower, np.fromiter(loans, dtype=np.int64))
            lender, borrower, share = lender[stays], borrower[stays], share[stays]
        added = [(item, loan) for item, loan in loans.items() if loan is not None]
        new_lender = np.concatenate([lender[:0], *(loan.lenders for _, loan in added)])
        new_borrower = np.repeat([item for item, _ in added], [len(loan.lenders) for _, loan in added]).astype(np.int64)
        new_share = np.concatenate([share[:0], *(loan.shares for _, loan in added)])
        order = np.lexsort((new_borrower, new_lender))
        places = np.searchsorted(lender, new_lender[order], side="right")
        return BorrowedTransitions(
            self.graph,
            rows,
            np.insert(lender, places, new_lender[order]),
            np.insert(borrower, places, new_borrower[order]),
            np.insert(share, places, new_share[order]),
        )

    def lookup(self, items: Sequence[int] | npt.NDArray[np.integer]) -> Row:
        """t(s, v) of one session, sparse, as ``TransitionGraph.lookup``; borrowers are among the items found."""
        found, strengths = self.graph.lookup(items, instead=self.rows)
        borrowers, lent = self._lent(found, strengths)
        if not len(borrowers):
            return found, strengths
        order = np.argsort(np.concatenate([found, borrowers]), kind="stable")
        return np.concatenate([found, borrowers])[order], np.concatenate([strengths, lent])[order]

    def scores(self, prefixes: Sessions) -> torch.Tensor:
        """t(s, v) of every item of the graph after each prefix, float32 [B, V]: ``lookup`` for many sessions at once."""
        import torch

        table = self._with_rows().scores(prefixes)
        inside = self.borrower < self.num_items
        borrowers, column = np.unique(self.borrower[inside], return_inverse=True)
        lenders = torch.from_numpy(self.lender[inside])
        shares = torch.from_numpy(self._weight[inside])
        at_once = max(GATHERED_AT_ONCE // max(len(lenders), 1), 1)
        for start in range(0, len(table) if len(borrowers) else 0, at_once):
            block = table[start : start + at_once]
            lent = torch.zeros(len(block), len(borrowers)).index_add_(1, torch.from_numpy(column), block[:, lenders] * shares)
            block[:, torch.from_numpy(borrowers)] = lent
        return table

    def _lent(self, found: npt.NDArray[np.int32], strengths: npt.NDArray[np.float32]) -> Row:
        """What the items found lend to their borrowers: borrowers int32, ascending, and t(s, v) of each."""
        if len(self.share) + self.num_items // 8 <= TABLE_SHARE * len(found):
            table = np.zeros(self.num_items, dtype=np.float32)
            table[found] = strengths
            sums = np.bincount(self._column, table[self.lender] * self._weight)
        else:
            first = self._first[found]
            counts = self._first[1:][found] - first
            places = np.arange(counts.sum()) + np.repeat(first - np.cumsum(counts) + counts, counts)
            terms = self._weight[places] * np.repeat(strengths, counts)
            sums = np.bincount(self._column[places], terms, minlength=len(self._borrowers))
        lent = np.flatnonzero(sums)
        return self._borrowers[lent], sums[lent].astype(np.float32)

    def _borrowed_row(self, item: int, loan: Loan) -> Row:
        rows = [self.graph.row(int(lender)) for lender in loan.lenders]
        shares = loan.shares * np.float32(self.settings.text_new_sources)
        neighbours, weights = sum_by_item(
            [row for row, _ in rows], [weight * share for (_, weight), share in zip(rows, shares, strict=True)]
        )
        heaviest = np.sort(np.argsort(-weights, kind="stable")[: self.settings.text_kept])
        return neighbours[heaviest], weights[heaviest]

    def _with_rows(self) -> TransitionGraph:
        """The graph with the borrowed rows of its own items written into it."""
        lengths = np.diff(self.graph.indptr)
        inside = sorted(item for item in self.rows if item < self.num_items)
        places = np.repeat(self.graph.indptr[inside], [len(self.rows[item][0]) for item in inside])
        lengths[inside] = [len(self.rows[item][0]) for item in inside]
        neighbours = [self.rows[item][0] for item in inside]
        weights = [self.rows[item][1] for item in inside]
        return TransitionGraph(
            self.settings,
            np.concatenate([[0], np.cumsum(lengths)]),
            np.insert(self.graph.neighbours, places, np.concatenate([self.graph.neighbours[:0], *neighbours])),
            np.insert(self.graph.weights, places, np.concatenate([self.graph.weights[:0], *weights])),
        )
