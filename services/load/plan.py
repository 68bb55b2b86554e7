"""What is asked, and when: drawn before the first call is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


def poisson_times(rate: float, seconds: float, random: np.random.Generator, start: float = 0.0) -> npt.NDArray[np.float64]:
    """Moments of a Poisson process, ascending: independent visitors, ``rate`` of them a second on average.

    Given their number, the moments of such a process are independent and uniform.
    """
    moments = random.uniform(start, start + seconds, random.poisson(rate * seconds))
    return np.sort(moments)


@dataclass(frozen=True)
class Method:
    """A method of a service: where it is, and the name of its figures."""

    name: str
    host: str
    port: int
    path: str

    @classmethod
    def at(cls, name: str, address: str, path: str) -> Method:
        """From "host:port"."""
        host, _, port = address.rpartition(":")
        return cls(name, host.strip("[]"), int(port), path)


@dataclass(frozen=True)
class LoadPlan:
    """Calls in the order of their times.

    Attributes:
        methods: those that are called.
        times: float64 [n], seconds after the start at which each call is due; ascending.
        method_of: int64 [n], places in ``methods``.
        messages: n serialised requests.
        timeout: deadline of every call, seconds from its sending; the client gives up then.
        in_flight: most calls at a time; beyond it a call waits (a "closed loop": for finding the most a server can do, not for
            latencies). None sets no limit.
        connections: TCP connections for each method's address; calls go round them.
        metadata: sent with every call.
    """

    methods: tuple[Method, ...]
    times: npt.NDArray[np.float64]
    method_of: npt.NDArray[np.int64]
    messages: Sequence[bytes]
    timeout: float = 1.0
    in_flight: int | None = None
    connections: int = 4
    metadata: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.times)

    @classmethod
    def of_one(
        cls,
        method: Method,
        times: npt.NDArray[np.float64],
        messages: Sequence[bytes],
        *,
        timeout: float = 1.0,
        in_flight: int | None = None,
        connections: int = 4,
    ) -> LoadPlan:
        """Calls of one method; messages are used again from the first where there are fewer than times."""
        around = [messages[number % len(messages)] for number in range(len(times))]
        which = np.zeros(len(times), dtype=np.int64)
        return cls((method,), times, which, around, timeout, in_flight, connections)

    @classmethod
    def merged(cls, plans: Sequence[LoadPlan]) -> LoadPlan:
        """Several plans at once, for example rankings beside inserts; deadline and connections are the first one's."""
        methods = tuple(method for plan in plans for method in plan.methods)
        firsts = np.cumsum([0, *(len(plan.methods) for plan in plans)])
        times = np.concatenate([plan.times for plan in plans])
        order = np.argsort(times, kind="stable")
        which = np.concatenate([plan.method_of + first for plan, first in zip(plans, firsts, strict=False)])
        messages = [message for plan in plans for message in plan.messages]
        first = plans[0]
        return cls(
            methods,
            times[order],
            which[order],
            [messages[place] for place in order],
            first.timeout,
            first.in_flight,
            first.connections,
            first.metadata,
        )
