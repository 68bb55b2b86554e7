"""Sessions to ask with: items as popular, and sessions as long, as in a shop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llmgr_core.ranker.parts import RankerParts
from llmgr_core.sessions import Sessions
from services.contract import ranking_service_pb2 as messages
from services.load.zipf import ZipfLaw

# Where no data set tells: fitted to the training sessions of Amazon Beauty (5-core); 9.1 clicks in a request on average.
USUAL_LENGTHS = ZipfLaw(exponent=2.7539, shift=7.0961, size=200)
LONGEST = 200


@dataclass(frozen=True)
class SessionSource:
    """Draws sessions whose items are independent.

    A click says nothing about the next one here. To a server that scores the whole catalogue this makes no difference; the
    items' popularity does (popular ones have more transitions), and so do the lengths.

    Attributes:
        item_ids: n identifiers.
        popularity: float64 [n], probabilities.
        lengths: float64 [m], probability of 1 .. m clicks.
        origin: where both come from, for whoever reads the figures.
    """

    item_ids: Sequence[str]
    popularity: npt.NDArray[np.float64]
    lengths: npt.NDArray[np.float64]
    origin: str

    @classmethod
    def from_bundle(cls, parts: RankerParts, sessions: Sessions | None = None) -> SessionSource:
        """Items by the Zipf law fitted to a bundle's training clicks, lengths by the law fitted to sessions.

        Args:
            parts: of a bundle.
            sessions: for example those of the data set the bundle was trained on; None for USUAL_LENGTHS.
        """
        order = np.argsort(-parts.popularity, kind="stable")
        popularity = ZipfLaw.fitted(parts.popularity[order])
        shares = np.empty(len(order))
        shares[order] = popularity.probabilities()
        lengths = USUAL_LENGTHS if sessions is None else fit_lengths(sessions.lengths)
        origin = "items: {}; clicks: {}, {}".format(
            describe(popularity),
            describe(lengths),
            "as in Amazon Beauty" if sessions is None else "fitted to the sessions given",
        )
        return cls(parts.item_ids, shares, lengths.probabilities(), origin)

    def draw(self, count: int, random: np.random.Generator) -> list[list[str]]:
        """That many sessions of item ids, oldest click first."""
        lengths = random.choice(len(self.lengths), count, p=self.lengths) + 1
        clicks = random.choice(len(self.popularity), int(lengths.sum()), p=self.popularity).tolist()
        ends = np.cumsum(lengths).tolist()
        return [
            [self.item_ids[item] for item in clicks[end - length : end]]
            for end, length in zip(ends, lengths.tolist(), strict=True)
        ]

    def requests(self, count: int, random: np.random.Generator, top_k: int = 20) -> list[bytes]:
        """That many serialised RankSession requests."""
        return [
            messages.RankSessionRequest(item_ids=session, top_k=top_k).SerializeToString()
            for session in self.draw(count, random)
        ]


def fit_lengths(lengths: npt.NDArray[np.integer]) -> ZipfLaw:
    """The law of the clicks in a request, for sessions with these numbers of clicks.

    A shop asks after every click but the last, so a session of n clicks makes requests of 1 .. n - 1 of them, of which the
    longest count as LONGEST.
    """
    sessions = np.bincount(np.minimum(lengths, LONGEST + 1), minlength=3)
    requests = np.cumsum(sessions[::-1])[::-1][2:]
    return ZipfLaw.fitted(requests)


def describe(law: ZipfLaw) -> str:
    return f"(r + {law.shift:g})^-{law.exponent:g} over 1..{law.size}"
