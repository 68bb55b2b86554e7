"""The rows as a table for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kernels.benchmark.measure import Row

RED, PLAIN = "\x1b[31m", "\x1b[0m"
HEADER = (
    f"{'':36} {'median ms':>10} {'p20':>9} {'p80':>9} {'host ms':>8} {'GB/s':>8} {'GFLOP/s':>9} "
    f"{'floor':>6} {'launches':>8} {'peak MB':>9} {'x ours':>7}"
)


def lines_of(rows: Iterable[Row], colour: bool) -> list[str]:
    """One line a row under a line a case; a result that is wrong stands in red, without a figure."""
    lines: list[str] = []
    case = ("", "")
    for row in rows:
        if (row.op, row.shape) != case:
            case = row.op, row.shape
            lines.append(f"{row.op}  {row.shape}" + (f"   floor {row.floor_seconds * 1e3:.4g} ms" if row.times else ""))
        lines.append(line_of(row, colour))
    return lines


def line_of(row: Row, colour: bool) -> str:
    """One row."""
    if row.times is None:
        verdict = row.problem or f"right: off by {row.deviation.rms:.1e} rms" if row.deviation else row.problem
        text = f"  {row.way:34} {verdict}"
        return f"{RED}{text}{PLAIN}" if row.wrong and colour else text
    seconds = row.times.median
    return (
        f"  {row.way:34} {seconds * 1e3:10.3f} {row.times.p20 * 1e3:9.3f} {row.times.p80 * 1e3:9.3f} "
        f"{_or_dash(row.times.wrapper, 8, 1e3, 3)} {row.moved_bytes / seconds / 1e9:8.1f} {row.flop / seconds / 1e9:9.1f} "
        f"{row.floor_seconds / seconds:6.0%} {_or_dash(row.launches, 8)} {_or_dash(row.peak_bytes, 9, 1e-6, 2)} "
        f"{_or_dash(row.ratio, 7, 1.0, 2)}{'' if row.times.wrapper is None or row.times.in_graph else '  plain calls'}"
    )


def _or_dash(value: float | None, width: int, factor: float = 1.0, digits: int = 0) -> str:
    return f"{'-':>{width}}" if value is None else f"{value * factor:{width}.{digits}f}"


def as_json(row: Row) -> dict[str, Any]:
    """Flat, in milliseconds and bytes; figures are absent where there are none."""
    found: dict[str, Any] = {"op": row.op, "shape": row.shape, "way": row.way}
    if row.problem:
        found |= {"problem": row.problem, "wrong": row.wrong}
    if row.deviation is not None:
        found["deviation"] = {name: float(f"{value:.2e}") for name, value in row.deviation._asdict().items()}
    if row.times is None:
        return found
    seconds = row.times.median
    found |= {
        "median_ms": _rounded(seconds * 1e3),
        "p20_ms": _rounded(row.times.p20 * 1e3),
        "p80_ms": _rounded(row.times.p80 * 1e3),
        "rounds": row.times.rounds,
        "gb_per_s": _rounded(row.moved_bytes / seconds / 1e9),
        "gflop_per_s": _rounded(row.flop / seconds / 1e9),
        "floor_ms": _rounded(row.floor_seconds * 1e3),
        "share_of_floor": _rounded(row.floor_seconds / seconds),
        "launches": row.launches,
        "peak_bytes": row.peak_bytes,
        "times_ours": None if row.ratio is None else _rounded(row.ratio),
        "moved_bytes": row.moved_bytes,
        "flop": row.flop,
        "facts": row.facts,
    }
    if row.times.wrapper is not None:
        found |= {"wrapper_ms": _rounded(row.times.wrapper * 1e3), "in_cuda_graph": row.times.in_graph}
    return found


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
