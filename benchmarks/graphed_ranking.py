"""How long the ranking server's path on a GPU takes, for each size of request that it captures a graph of.

    python benchmarks/graphed_ranking.py                                a bundle of random weights, 12,101 items
    python benchmarks/graphed_ranking.py --bundle runs/beauty/bundle    the rows of a bundle, without its text vectors
    python benchmarks/graphed_ranking.py --out results.json

``rank`` is ``GraphedRanking.rank`` from item numbers to a ranking, the host's work in it; ``run`` is one replay, the copy back
and the wait for it; ``replay`` is the graph alone, by the GPU's clock, many replays in a row; ``host`` is ``Snapshot.rank``, in
NumPy. The rows stay where they are, as in the server: a small catalogue is read from the L2 cache.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from llmgr_core.ranker import RankerRuntime
from llmgr_core.ranker.graphed_ranking import CLICK_SIZES, RANKING_SIZES, SMALLEST_CANDIDATES, GraphedRanking
from llmgr_core.ranker.stored import StoredRanker

TARGET_REPLAY_MS = 0.03
NOTHING_TO_MEASURE = "this machine has no CUDA device: there is nothing to measure here, for only on one are graphs captured"


def milliseconds(call: Callable[[], object], repeats: int) -> dict[str, float]:
    """Median and 90th percentile of a call, by the host's clock."""
    times = np.empty(repeats)
    for number in range(repeats):
        started = time.perf_counter_ns()
        call()
        times[number] = time.perf_counter_ns() - started
    p50, p90 = np.quantile(times / 1e6, [0.5, 0.9])
    return {"p50_ms": round(float(p50), 5), "p90_ms": round(float(p90), 5)}


def replay_milliseconds(graph: torch.cuda.CUDAGraph, repeats: int) -> float:
    """A replay among many in a row, by the GPU's clock."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(repeats):
        graph.replay()
    end.record()
    end.synchronize()
    return round(begin.elapsed_time(end) / repeats, 5)


def measured(stored: StoredRanker, runtime: RankerRuntime, device: str, repeats: int) -> list[dict[str, Any]]:
    """A row for each usual size: clicks, length of the ranking, and with a list of candidates."""
    ranking = GraphedRanking(stored, runtime, device)
    snapshot = ranking.snapshot()
    random = np.random.default_rng(3)
    rows = []
    # A bucket takes all up to its size; where the encoder reads fewer clicks, it is measured with those.
    for count in sorted({min(size, snapshot.parts.max_clicks) for size in CLICK_SIZES}):
        # Items without a row would not be encoded, and the request would be of a smaller size.
        clicks = random.choice(np.flatnonzero(snapshot.parts.has_id), count)
        choices = [(k, None) for k in RANKING_SIZES]
        choices.append((RANKING_SIZES[0], random.choice(snapshot.num_items, SMALLEST_CANDIDATES, replace=False)))
        for k, candidates in choices:
            before = dict(ranking._programs)
            snapshot.rank(clicks, k, candidates=candidates)
            (sizes,) = ranking._programs.keys() - before.keys()
            program = ranking._programs[sizes]
            row: dict[str, Any] = {
                **sizes._asdict(),
                "rank": milliseconds(lambda: snapshot.rank(clicks, k, candidates=candidates), repeats),  # noqa: B023
                "run": milliseconds(program.run, repeats),
                "host": milliseconds(lambda: snapshot.state.rank(clicks, k, candidates=candidates), repeats),  # noqa: B023
            }
            if program._captured is not None:
                row["replay"] = {"p50_ms": replay_milliseconds(program._captured[0], repeats)}
            rows.append(row)
    return rows


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    size = f"clicks <= {row['clicks']}, lists <= {row['listed']}, candidates <= {row['candidates']}, k = {row['k']}"
    figures = [f"{name} {row[name]['p50_ms']:.4f} ms" for name in ("replay", "run", "rank", "host") if name in row]
    return f"{size:<62} {'  '.join(figures)}"


@click.command("graphed-ranking", help="Time of the ranking server's captured graphs, for each size of request.")
@click.option("--bundle", "bundle_path", type=click.Path(exists=True, file_okay=False, path_type=Path), help="A bundle.")
@click.option("--items", type=click.IntRange(100), default=12_101, show_default=True, help="Size of the synthetic bundle.")
@click.option("--repeats", type=click.IntRange(5), default=300, show_default=True, help="Calls of each size.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures here, as JSON.")
def command(bundle_path: Path | None, items: int, repeats: int, out: Path | None) -> None:
    if not torch.cuda.is_available():
        click.echo(NOTHING_TO_MEASURE)
        return
    from llmgr_core.bundle import Bundle
    from llmgr_core.evaluation.protocol import commit, machine
    from services.ranking.synthetic_bundle import SyntheticBundle

    with tempfile.TemporaryDirectory() as scratch:
        path = bundle_path or Path(scratch) / "bundle"
        if bundle_path is None:
            SyntheticBundle(items).write(path)
        bundle = Bundle.open(path)
        rows = measured(bundle.ranker, RankerRuntime(bundle.parts), "cuda", repeats)
    for row in rows:
        click.echo(line(row))
    result = {
        "benchmark": "graphed_ranking",
        "protocol": {
            "items": bundle.parts.num_items,
            "dimension": bundle.description.encoder.dimension,
            "encoder": bundle.description.encoder.name,
            "bundle": "of a run, ID vectors alone" if bundle_path else "random weights",
            "repeats": repeats,
        },
        "targets": {"replay p50_ms": TARGET_REPLAY_MS},
        "rows": rows,
        "gpu": torch.cuda.get_device_name(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "commit": commit(),
        "machine": machine(),
    }
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    command()
