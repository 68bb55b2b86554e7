"""The tables of docs/kernels.md, made from the files of a run and from the floors: none of their figures is typed by hand.

    python benchmarks/kernel_tables.py           write them anew
    python benchmarks/kernel_tables.py --check   exit status 1 if one differs from its file

After a run: python -m kernels.benchmark --quick --threads 1 --seconds 200 --out benchmarks/results, and, without --quick,
on a CUDA machine, whose medians then stand in the last column of the floors.
"""

from __future__ import annotations

import json
import sys
import textwrap
from itertools import groupby
from pathlib import Path
from typing import Any

import click
import torch

from kernels.benchmark.cases import OURS, Setting
from kernels.benchmark.ops import OPS
from kernels.benchmark.roofs import H200
from kernels.benchmark.sessions import session_source
from llmgr_core.errors import InputError
from trainer.report.page_blocks import page_with_blocks

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "kernels.md"
RESULTS = ROOT / "benchmarks" / "results"


def figure(value: float) -> str:
    """Three digits."""
    return f"{value:.0f}" if value >= 99.5 else f"{value:.3g}" if value < 0.995 else f"{value:#.3g}"


def cpu_table(result: dict[str, Any]) -> list[str]:
    """What one run on a CPU found, a row a case."""
    versions, machine = result["versions"], result["machine"]
    facts = (
        f"`{result['command']}` at commit {result['commit'][:7]}, {result['seconds']:.0f} s; torch {versions['torch']}, "
        f"{machine['threads']} thread of {machine['cores']} cores ({machine['processor']}), {result['dtype']}, "
        f"sessions {result['sessions']}; copy {result['roofs']['bytes_per_second'] / 1e9:.0f} GB/s, products "
        f"{result['roofs']['flop_per_second'] / 1e9:.0f} GFLOP/s:"
    )
    told = [
        *textwrap.wrap(facts, 128, break_long_words=False, break_on_hyphens=False),
        "",
        "| op | size | ours, ms (p20 to p80) | share of the floor | operations | peak MB | baselines, times ours |",
        "|---|---|---|---|---|---|---|",
    ]
    for (op, shape), rows in groupby(result["rows"], key=lambda row: (row["op"], row["shape"])):
        ours, *others = rows
        if ours["way"] != OURS or "median_ms" not in ours:
            told.append(f"| {op} | {shape} | {ours.get('problem', 'not measured')} | | | | |")
            continue
        spread = f"{figure(ours['median_ms'])} ({figure(ours['p20_ms'])} to {figure(ours['p80_ms'])})"
        beside = "; ".join(f"{row['way']} {verdict(row)}" for row in others)
        share = f"{ours['share_of_floor']:.0%}"
        told.append(f"| {op} | {shape} | {spread} | {share} | {ours['launches']} | {ours['peak_bytes'] / 1e6:.1f} | {beside} |")
    return told


def verdict(row: dict[str, Any]) -> str:
    """How many times ours, or why there is no figure."""
    return f"{row['times_ours']:.2f}" if row.get("times_ours") is not None else f"({row.get('problem', 'no figure')})"


def floors_table(measured: dict[str, Any] | None) -> list[str]:
    """Bytes, products and least time of each case on an H200, with a run's medians where there is one."""
    rows = measured["rows"] if measured else []
    found = {(row["op"], row["shape"]): row["median_ms"] * 1e3 for row in rows if row["way"] == OURS and "median_ms" in row}
    told = ["| op | size | MB | GFLOP | floor, us | bound by | measured, us |", "|---|---|---|---|---|---|---|"]
    setting = Setting(torch.device("cpu"), torch.bfloat16, "full", session_source("even", None), True, 1e18)
    # The graphs of sessions are built on the CPU.
    for op, cases in ((op, cases) for op, cases in OPS.items() if op != "session_graph"):
        for case in cases(setting):
            seconds = H200.floor_seconds(case.moved_bytes, case.flop)
            bound = "copy" if case.moved_bytes / H200.bytes_per_second >= seconds else "products"
            floor = f"{case.moved_bytes / 1e6:.2f} | {case.flop / 1e9:.3f} | {seconds * 1e6:.2f} | {bound}"
            took = found.get((op, case.shape))
            told.append(f"| {op} | {case.shape} | {floor} | {'not measured' if took is None else figure(took)} |")
    return told


def tables(page: str, results: Path = RESULTS) -> str:
    """The page with both tables as the files say.

    Raises:
        InputError: see page_with_blocks.
    """
    read = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in results.glob("kernels-*.json")}
    made = {"kernels-cpu": cpu_table(read["kernels-cpu"]), "kernels-floors": floors_table(read.get("kernels-cuda"))}
    return page_with_blocks(page, {name: "\n".join(lines) for name, lines in made.items()})


@click.command("kernel-tables", help=(__doc__ or "").partition("\n\n")[0])
@click.option("--check", is_flag=True, help="Change nothing; exit status 1 if a table differs.")
def command(check: bool) -> None:
    page = PAGE.read_text(encoding="utf-8")
    try:
        fresh = tables(page)
    except InputError as error:
        raise click.ClickException(f"{PAGE.name}: {error}") from None
    if check:
        click.echo(
            "the tables are those of the files" if fresh == page else "the tables differ: python benchmarks/kernel_tables.py"
        )
        sys.exit(int(fresh != page))
    PAGE.write_text(fresh, encoding="utf-8")


if __name__ == "__main__":
    command()
