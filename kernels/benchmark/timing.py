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
from kernels.benchmark.request import Request, RequestMemory
from kernels.benchmark.roofs import timing_event

MOST_COPIES = 128
FEWEST_ROUNDS, MOST_ROUNDS = 5, 60
# A request is timed alone, so that the host's pauses show in single ones.
MOST_REQUESTS = 1000
SHORT_SECONDS = 0.02


class Times(NamedTuple):
    """Seconds a call.

    Attributes:
        median, p20, p80: of the rounds.
        wrapper: on CUDA, what the call costs the host until it returns (of a request: until it waits); None on a CPU, where it
            is the whole.
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

    def all_calls() -> None:
        for call in calls:
            call()

    captured = _captured(all_calls, device) if way.captured else None

    def replay() -> None:
        if captured is not None:
            captured[0].replay()
            return
        all_calls()

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
    return _times(seconds, wrapper, captured is not None or _captures_itself(way))


def on_request(way: Way, prepared: Prepared, memory: RequestMemory, device: torch.device, budget_seconds: float) -> Times:
    """Time single requests by the host's clock, from its input in the host's memory to the answer in the host's memory.

    A captured way is one CUDA graph, replayed for each request, as a ranking server does it.
    """
    work = partial(way.call, **prepared.streamed)
    captured = _captured(work, device) if way.captured and device.type == "cuda" else None
    request = Request(memory, work, None if captured is None else (captured[0].replay, captured[1]))
    for _ in range(3):
        request()
    seconds: list[float] = []
    waited: list[float] = []
    started = time.perf_counter()
    while len(seconds) < FEWEST_ROUNDS or (len(seconds) < MOST_REQUESTS and time.perf_counter() - started < budget_seconds):
        begin = time.perf_counter()
        answer = request.start()
        sent = time.perf_counter()
        answer.cpu()
        seconds.append(time.perf_counter() - begin)
        waited.append(sent - begin)
    wrapper = float(np.median(waited)) if device.type == "cuda" else None
    return _times(seconds, wrapper, captured is not None or _captures_itself(way))


def _captures_itself(way: Way) -> bool:
    """Whether a way that is to capture a graph by itself did so; torch.compile tells where it did not."""
    return way.own_graph and torch._dynamo.utils.counters["inductor"]["cudagraph_skips"] == 0


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


def _captured(work: Callable[[], Any], device: torch.device) -> tuple[torch.cuda.CUDAGraph, Any] | None:
    """The graph and what the work gave in it, which each replay writes anew; None where it cannot be captured."""
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        work()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            result = work()
    except RuntimeError:
        torch.cuda.synchronize(device)
        return None
    return graph, result
