"""Times of several ways, fairly: in turns on a CPU; inside CUDA graphs over rotating inputs on a GPU."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from kernels.benchmark.cases import Prepared, Way
from kernels.benchmark.roofs import timing_event

MOST_COPIES = 128
FEWEST_ROUNDS, MOST_ROUNDS = 5, 60
SHORT_SECONDS = 0.02


class Times(NamedTuple):
    """Seconds a call.

    Attributes:
        median, p20, p80: of the rounds.
        wrapper: on CUDA, what the call costs the host until it returns; None on a CPU, where it is the whole.
        rounds: how many.
        in_graph: whether a CUDA graph was replayed.
    """

    median: float
    p20: float
    p80: float
    wrapper: float | None
    rounds: int
    in_graph: bool


def _times(seconds: Sequence[float], wrapper: float | None = None, in_graph: bool = False) -> Times:
    p20, median, p80 = (float(value) for value in np.quantile(seconds, [0.2, 0.5, 0.8]))
    return Times(median, p20, p80, wrapper, len(seconds), in_graph)


def interleaved(calls: Mapping[str, Callable[[], Any]], budget_seconds: float) -> dict[str, Times]:
    """Call all in turn, round after round, so that they meet the same machine.

    A short call is made twice and the second timed, so that it does not pay for what another way left in the caches.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    started = time.perf_counter()
    for number in range(MOST_ROUNDS + 1):
        if number > FEWEST_ROUNDS and time.perf_counter() - started > budget_seconds:
            break
        for name, call in calls.items():
            if seconds[name] and seconds[name][-1] < SHORT_SECONDS:
                call()
            begin = time.perf_counter()
            call()
            if number:
                # The first round warms caches up.
                seconds[name].append(time.perf_counter() - begin)
    return {name: _times(values) for name, values in seconds.items()}


def on_gpu(way: Way, prepared: Prepared, device: torch.device, budget_seconds: float) -> Times:
    """Time one way over copies of the inputs that together are twice the L2 cache, so that each call reads from memory.

    Captured ways run inside one CUDA graph, a call a copy. A way that cannot be captured (it waits for the GPU) is timed by
    plain calls, as are those whose users make plain calls.
    """
    copies = _copies(prepared.streamed, device)
    calls = [partial(way.call, **inputs) for inputs in copies]
    for call in calls[:3]:
        call()
    torch.cuda.synchronize(device)
    wrapper = _wrapper_seconds(calls, device)
    graph = _captured(calls, device) if way.captured else None

    def replay() -> None:
        if graph is not None:
            graph.replay()
            return
        for call in calls:
            call()

    replay()
    torch.cuda.synchronize(device)
    seconds: list[float] = []
    started = time.perf_counter()
    while len(seconds) < FEWEST_ROUNDS or (len(seconds) < MOST_ROUNDS and time.perf_counter() - started < budget_seconds):
        begin, end = timing_event(), timing_event()
        begin.record()
        replay()
        end.record()
        end.synchronize()
        seconds.append(begin.elapsed_time(end) * 1e-3 / len(calls))
    return _times(seconds, wrapper, graph is not None)


def _copies(streamed: Mapping[str, torch.Tensor], device: torch.device) -> list[dict[str, torch.Tensor]]:
    size = sum(tensor.nbytes for tensor in streamed.values())
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    count = min(MOST_COPIES, -(-2 * cache // max(1, size)))
    return [
        {name: tensor.detach().clone().requires_grad_(tensor.requires_grad) for name, tensor in streamed.items()}
        for _ in range(count)
    ]


def _wrapper_seconds(calls: Sequence[Callable[[], Any]], device: torch.device) -> float:
    seconds = []
    for call in itertools.islice(itertools.cycle(calls), MOST_ROUNDS):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
        # The queue stays short, so that the host never waits for room in it.
        torch.cuda.synchronize(device)
    return float(np.median(seconds))


def _captured(calls: Sequence[Callable[[], Any]], device: torch.device) -> torch.cuda.CUDAGraph | None:
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        calls[0]()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            for call in calls:
                call()
    except RuntimeError:
        torch.cuda.synchronize(device)
        return None
    return graph
