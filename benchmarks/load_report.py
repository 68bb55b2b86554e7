"""Tables of the load benchmarks for people, and their JSON and pictures for everybody else."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click


def line(name: str, figures: dict[str, Any], more: str = "") -> None:
    """One row of milliseconds."""
    shown = [
        (key, value) for key, value in figures.items() if key.endswith("_ms") and not key.startswith(("client", "timeout"))
    ]
    cells = "  ".join(f"{key.removesuffix('_ms')} {'-' if value is None else f'{value:.3f}':>9}" for key, value in shown)
    click.echo(f"{name:<34} {cells}  {more}".rstrip())


def print_ranking(result: dict[str, Any]) -> None:
    """Everything `llmgr bench ranking` found, floors first."""
    click.echo(f"{result['title']}; loaded in {result['loading_seconds']:.2f} s; milliseconds")
    line("raw scan of the table", result["floors"]["raw scan"])
    line("ranking in process", result["floors"]["in process"], f"cpu {result['floors']['in process cpu_us']:.0f} us")
    for name, figures in result["one at a time"].items():
        line(f"{name}, one at a time", figures)
    print_loads(result)
    click.echo(f"at most {result['peak_per_s']:.0f} calls/s, 64 at a time")
    if "overload" in result:
        over = result["overload"]
        click.echo(
            f"{over['multiple']:g} times that: {over['goodput_per_s']:.0f} answered in time a second"
            f" ({over['goodput_share']:.0%}), normal again after {over['seconds_to_normal']} s, {over['during']['statuses']}"
        )
        line("  admitted", over["admitted"])
        line("  shed", over["shed"])
    if "swap" in result:
        one = result["swap"]
        click.echo(f"another bundle at {one['rate']:g}/s: served after {one['seconds']} s, {one['statuses']}")
        line("  before", one["before"])
        line("  meanwhile", one["during"], f"p99 {one['p99_factor']} times")
    print_targets(result)


def print_loads(result: dict[str, Any]) -> None:
    """Each rate with its floor under it."""
    for load in result["loads"]:
        statuses = {name: count for name, count in load["latency"]["statuses"].items() if name != "OK"}
        more = f"cpu {load['server_cpu_us']:.0f} us" + (f"  {statuses}" if statuses else "")
        line(f"{load.get('name', result['method'])}, {load['rate']:g}/s", load["latency"], more)
        line("  no-op call", load["floor"], f"cpu {load['floor_cpu_us']:.0f} us")
        late = load["latency"]["client_late_p99_ms"]
        if late > 1.0:
            click.echo(f"  the client itself was late: p99 {late:.1f} ms; free its core")


def print_targets(result: dict[str, Any]) -> None:
    for name, reached in result["reached"].items():
        click.echo(f"{'reached' if reached else 'MISSED ':<8} {name}")


def finish(result: dict[str, Any], out: Path | None) -> None:
    """Write JSON and pictures."""
    from llmgr_core.evaluation.protocol import commit, machine

    result |= {"command": [Path(sys.argv[0]).name, *sys.argv[1:]], "commit": commit(), "machine": machine()}
    if out is None:
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    try:
        from services.load.plots import benchmark_plots

        for name, svg in benchmark_plots(result):
            out.with_name(f"{out.stem}-{name}.svg").write_text(svg, encoding="utf-8")
    except ModuleNotFoundError:
        click.echo("no pictures: matplotlib is not installed (pip install 'llmgr[plots]')", err=True)
