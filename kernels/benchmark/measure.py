"""One case: checked first, then counted, then timed."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from kernels.benchmark.cases import OURS, Case, Deviation, Prepared, Setting, Way
from kernels.benchmark.counting import launches, peak_bytes
from kernels.benchmark.roofs import Roofs
from kernels.benchmark.timing import Times, interleaved, on_gpu, on_request

# A case whose floor alone takes this long is left out.
LONGEST_FLOOR_SECONDS = 2.0


@dataclass(frozen=True)
class Row:
    """One way of one case.

    Attributes:
        op, shape, way: what it is.
        problem: why it has no figures: its result is wrong, or it cannot run here. Empty where it has.
        wrong: whether its result is wrong.
        deviation: of its result from float64.
        times: seconds a call.
        floor_seconds: what the op takes at least on this machine.
        moved_bytes, flop: of the op.
        launches: kernels on a GPU, torch operations on a CPU; None where they cannot be counted.
        peak_bytes: memory beyond the inputs.
        ratio: its median over ours; above 1 it is slower.
        facts: numbers of the drawn input.
    """

    op: str
    shape: str
    way: str
    problem: str = ""
    wrong: bool = False
    deviation: Deviation | None = None
    times: Times | None = None
    floor_seconds: float = 0.0
    moved_bytes: float = 0.0
    flop: float = 0.0
    launches: int | None = None
    peak_bytes: int | None = None
    ratio: float | None = None
    facts: dict[str, float] | None = None


def measure(case: Case, setting: Setting, roofs: Roofs | None, budget_seconds: float) -> Iterator[Row]:
    """The rows of a case, ours first. Without roofs results are checked and nothing is timed."""
    floor = 0.0 if roofs is None else roofs.floor_seconds(case.moved_bytes, case.flop)
    for far, why in (
        (floor > LONGEST_FLOOR_SECONDS, f"its floor alone is {floor:.0f} s"),
        (3.0 * case.moved_bytes > setting.memory_bytes, f"its tensors take {case.moved_bytes / 1e9:.0f} GB"),
    ):
        if far:
            yield Row(case.op, case.shape, OURS, problem=f"left out: {why}")
            return
    if setting.compile:
        # Each case gets code of its own, with its sizes fixed.
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
    prepared = case.prepare()
    device = torch.device("cpu") if case.on_host else setting.device
    verdicts = {way.name: _checked(way, prepared, setting) for way in prepared.ways}
    right = [way for way in prepared.ways if not verdicts[way.name][0]]
    timed = {} if roofs is None else _timed(right, prepared, device, budget_seconds)
    ours = timed.get(OURS)
    for way in prepared.ways:
        problem, wrong, deviation = verdicts[way.name]
        times = timed.get(way.name)
        counted = times is not None
        yield Row(
            case.op,
            case.shape,
            way.name,
            problem,
            wrong,
            deviation,
            times,
            floor,
            case.moved_bytes,
            case.flop,
            launches(_call(way, prepared), device, way.compiled) if counted else None,
            peak_bytes(_call(way, prepared), device) if counted else None,
            # Nothing is compared with a result of ours that is wrong.
            times.median / ours.median if times is not None and ours is not None else None,
            dict(case.facts),
        )


def _call(way: Way, prepared: Prepared) -> Callable[[], Any]:
    return lambda: way.call(**prepared.streamed)


def _checked(way: Way, prepared: Prepared, setting: Setting) -> tuple[str, bool, Deviation | None]:
    """(problem, whether the result is wrong, how far it is off)."""
    if way.missing:
        return f"not run: {way.missing}", False, None
    if way.takes_bytes > setting.memory_bytes:
        return f"not run: takes {way.takes_bytes / 1e9:.0f} GB", False, None
    try:
        found = (way.check or prepared.check)(way.call(**prepared.streamed))
    except Exception as error:
        # A baseline that breaks must not take the other figures with it; ours that breaks is as wrong as a wrong result.
        message = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:160]}"
        return f"FAILED with {message}", True, None
    finally:
        gc.collect()
    allowed = setting.allowed
    if not (found.maximum <= allowed.maximum and found.rms <= allowed.rms):
        return (
            f"WRONG: off by {found.maximum:.1e} (largest) and {found.rms:.1e} (rms); allowed {allowed.rms:.0e} rms",
            True,
            found,
        )
    return "", False, found


def _timed(ways: list[Way], prepared: Prepared, device: torch.device, budget_seconds: float) -> dict[str, Times]:
    if prepared.request is not None:
        return {way.name: on_request(way, prepared, prepared.request, device, budget_seconds) for way in ways}
    if device.type == "cuda":
        return {way.name: on_gpu(way, prepared, device, budget_seconds) for way in ways}
    if not ways:
        return {}
    return interleaved({way.name: _call(way, prepared) for way in ways}, budget_seconds * len(ways))
