"""More than a server can do, for a while: what it still does then, and how soon it is itself again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from services.load.outcomes import OK, REFUSED, Outcomes, quantiles
from services.load.plan import LoadPlan, Method, poisson_times

WINDOW_SECONDS = 0.25
SETTLING_SECONDS = 1.0
# A window after the overload is normal again where its slowest calls are within this of those before it.
NORMAL_FACTOR = 2.0
NORMAL_MARGIN_MS = 5.0


@dataclass(frozen=True)
class Overload:
    """Three stretches: as usual, too much, as usual again.

    Attributes:
        peak: calls a second the server can do.
        usual: calls a second before and after.
        multiple: offered during the overload, as a multiple of ``peak``.
        before, during, after: seconds.
        timeout: deadline of every call, seconds.
    """

    peak: float
    usual: float
    multiple: float = 3.0
    before: float = 5.0
    during: float = 30.0
    after: float = 10.0
    timeout: float = 0.5

    @property
    def end(self) -> float:
        """When the overload is over, in seconds after the start."""
        return self.before + self.during

    def plan(self, method: Method, requests: Sequence[bytes], random: np.random.Generator, connections: int = 4) -> LoadPlan:
        """Poisson arrivals of the three stretches."""
        times = np.concatenate(
            [
                poisson_times(self.usual, self.before, random),
                poisson_times(self.multiple * self.peak, self.during, random, self.before),
                poisson_times(self.usual, self.after, random, self.end),
            ]
        )
        return LoadPlan.of_one(method, times, requests, timeout=self.timeout, connections=connections)

    def figures(self, outcomes: Outcomes) -> dict[str, Any]:
        """What came of it.

        Returns:
            goodput: answered within the deadline, a second; its share of the peak; latencies of the admitted calls and of those
            that were refused; seconds until everything was as before; the same summary of each stretch.
        """
        before = outcomes.between(min(SETTLING_SECONDS, self.before / 2), self.before)
        during = outcomes.between(self.before, self.end)
        shed = np.isin(during.status, REFUSED)
        goodput = float(during.ok.sum()) / self.during
        return {
            "peak_per_s": round(self.peak, 1),
            "multiple": self.multiple,
            "timeout_ms": self.timeout * 1e3,
            "goodput_per_s": round(goodput, 1),
            "goodput_share": round(goodput / self.peak, 3),
            "admitted": quantiles(during.milliseconds[during.ok]),
            # From when it was sent: how late the client itself was does not say how fast it was refused.
            "shed": quantiles(((during.finished - during.sent) * 1e3)[shed]),
            "seconds_to_normal": self._seconds_to_normal(outcomes, before),
            "before": before.summary(),
            "during": during.summary(),
            "after": outcomes.between(self.end, self.end + self.after).summary(),
        }

    def _seconds_to_normal(self, outcomes: Outcomes, before: Outcomes) -> float | None:
        """Seconds from the end of the overload to the first moment after which every window is normal; None where none is."""
        usual = quantiles(before.milliseconds[before.ok])["p99_ms"]
        if usual is None:
            return None
        limit = max(NORMAL_FACTOR * usual, usual + NORMAL_MARGIN_MS)
        normal_since = None
        for start in np.arange(self.end, self.end + self.after - WINDOW_SECONDS / 2, WINDOW_SECONDS):
            window = outcomes.between(start, start + WINDOW_SECONDS)
            slowest = quantiles(window.milliseconds)["p90_ms"]
            if (window.status != OK).any() or (slowest is not None and slowest > limit):
                normal_since = None
            elif normal_since is None:
                normal_since = float(start - self.end)
        return None if normal_since is None else round(normal_since, 3)
