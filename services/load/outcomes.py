"""What became of the calls of a plan."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

QUANTILES = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99, "p99.9_ms": 0.999, "max_ms": 1.0}
CURVE = (*(place / 50 for place in range(50)), 0.985, 0.99, 0.995, 0.999, 0.9995, 1.0)
STATUS_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
OK = 0
# A server that has too much to do says RESOURCE_EXHAUSTED; the gRPC below it resets the stream (CANCELLED, UNAVAILABLE).
REFUSED = (8, 1, 14)


@dataclass(frozen=True)
class Outcomes:
    """One element a call, in the order of the plan; all times in seconds after the start.

    Attributes:
        methods: names.
        method_of: int64 [n], places in ``methods``.
        due: float64 [n], when the plan wanted it sent.
        sent: float64 [n], when it was; later than ``due`` only where the client itself was late.
        finished: float64 [n], when its status was known.
        status: int64 [n], gRPC status numbers.
        seconds: how long the plan took.
        client_cpu_seconds: processor time of the client.
        started_at: the start, in seconds of time.monotonic(), which all processes of a machine share.
        replies: bytes, where they were kept.
    """

    methods: tuple[str, ...]
    method_of: npt.NDArray[np.int64]
    due: npt.NDArray[np.float64]
    sent: npt.NDArray[np.float64]
    finished: npt.NDArray[np.float64]
    status: npt.NDArray[np.int64]
    seconds: float
    client_cpu_seconds: float
    started_at: float = 0.0
    replies: list[bytes] = field(default_factory=list, repr=False)

    def __len__(self) -> int:
        return len(self.due)

    @property
    def milliseconds(self) -> npt.NDArray[np.float64]:
        """float64 [n], from the moment each call was due, whenever it was sent."""
        return (self.finished - self.due) * 1e3

    @property
    def ok(self) -> npt.NDArray[np.bool_]:
        good: npt.NDArray[np.bool_] = self.status == OK
        return good

    def only(self, chosen: npt.NDArray[np.bool_]) -> Outcomes:
        """Some of the calls."""
        return Outcomes(
            self.methods,
            self.method_of[chosen],
            self.due[chosen],
            self.sent[chosen],
            self.finished[chosen],
            self.status[chosen],
            self.seconds,
            self.client_cpu_seconds,
            self.started_at,
        )

    def of_method(self, name: str) -> Outcomes:
        """Calls of one method."""
        return self.only(self.method_of == self.methods.index(name))

    def between(self, start: float, end: float) -> Outcomes:
        """Calls that were due in [start, end)."""
        return self.only((self.due >= start) & (self.due < end))

    def curve(self) -> dict[str, list[float]]:
        """The distribution of the latencies of calls that went well, as points: share of the calls, milliseconds."""
        return curve_of(self.milliseconds[self.ok])

    def statuses(self) -> dict[str, int]:
        """How many calls ended with each status, by name."""
        numbers, counts = np.unique(self.status, return_counts=True)
        return {STATUS_NAMES.get(int(one), str(one)): int(count) for one, count in zip(numbers, counts, strict=True)}

    def summary(self) -> dict[str, Any]:
        """Latencies of the calls that went well, statuses, and how late the client was itself."""
        span = float(self.due.max() - self.due.min()) if len(self) > 1 else 0.0
        return {
            "calls": len(self),
            "offered_per_s": round(len(self) / span, 1) if span else None,
            "answered_per_s": round(float(self.ok.sum()) / span, 1) if span else None,
            **quantiles(self.milliseconds[self.ok]),
            "statuses": self.statuses(),
            "client_late_p99_ms": quantiles((self.sent - self.due) * 1e3)["p99_ms"],
        }


def curve_of(milliseconds: npt.NDArray[np.float64]) -> dict[str, list[float]]:
    """A distribution as points: share of the values, milliseconds that so many of them reach at most."""
    if not len(milliseconds):
        return {"share": [], "ms": []}
    return {"share": list(CURVE), "ms": [round(float(value), 4) for value in np.quantile(milliseconds, CURVE)]}


def quantiles(values: npt.NDArray[np.float64]) -> dict[str, float | None]:
    """p50 to the maximum of values in milliseconds; None where there are none."""
    if not len(values):
        return dict.fromkeys(QUANTILES)
    found = np.quantile(values, list(QUANTILES.values()))
    return {name: round(float(value), 4) for name, value in zip(QUANTILES, found, strict=True)}
