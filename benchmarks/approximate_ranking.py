"""What an approximate search finds and how long it takes, over the number of cells it looks into, beside the exact scan.

    llmgr bench ann                                 a million items in clusters, 64 dimensions
    llmgr bench ann --items 50000 --probes 8,32
    llmgr bench ann --run runs/beauty               the rows of a bundle and its store

One thread, in process. Of the sessions, every other one has five clicks of one cluster, the rest five clicks anywhere (with
--run, all are drawn by popularity). Recall is the share of the exact 20 that the approximate 20 hold.
"""

# Threads are counted when NumPy is loaded, so that they have to be set before.
# ruff: noqa: E402

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

import dataclasses
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

CLICKS, RANKED = 5, 20
SEED = 3  # of the rows; of the sessions one more
ITEMS_PER_CLUSTER = 200
TAIL_SHARE = 0.01


def clustered_snapshot(items: int) -> Any:
    """Rows in clusters of ITEMS_PER_CLUSTER neighbours, under an encoder of random weights."""
    import tempfile

    from llmgr_core.bundle import Bundle
    from llmgr_core.ranker import RankerRuntime
    from services.ranking.synthetic_bundle import SyntheticBundle

    with tempfile.TemporaryDirectory() as scratch:
        SyntheticBundle(items, clicks_per_item=2).write(Path(scratch) / "bundle")
        parts = Bundle.open(Path(scratch) / "bundle", verify=False).parts
    random = np.random.default_rng(SEED)
    rows = random.normal(scale=0.5, size=(items, parts.id_vectors.shape[1])).astype(np.float32)
    centres = random.normal(size=(-(-items // ITEMS_PER_CLUSTER), rows.shape[1])).astype(np.float32)
    rows += np.repeat(centres, ITEMS_PER_CLUSTER, axis=0)[:items]
    return RankerRuntime(dataclasses.replace(parts, id_vectors=rows)).snapshot


def sessions_of(snapshot: Any, count: int, clustered: bool) -> list[np.ndarray]:
    from services.load.session_source import SessionSource

    random = np.random.default_rng(SEED + 1)
    if not clustered:
        return [snapshot.indices(one) for one in SessionSource.from_bundle(snapshot.parts).draw(count, random)]
    clusters = snapshot.num_items // ITEMS_PER_CLUSTER
    starts = [random.integers(0, clusters, 1 if number % 2 else CLICKS) * ITEMS_PER_CLUSTER for number in range(count)]
    return [start + random.integers(0, ITEMS_PER_CLUSTER, CLICKS) for start in starts]


def timed(snapshot: Any, sessions: list[np.ndarray]) -> tuple[list[np.ndarray], dict[str, float | None]]:
    """Rankings, and quantiles of the milliseconds each took."""
    from services.load.outcomes import quantiles

    found, took = [], []
    for session in sessions:
        started = time.perf_counter()
        found.append(snapshot.rank(session, RANKED).indices)
        took.append((time.perf_counter() - started) * 1e3)
    return found, quantiles(np.array(took))


@click.command("ann", help=(__doc__ or "").replace("\n\n    ", "\n\n\b\n    "))
@click.option("--run", "run_directory", type=click.Path(file_okay=False, path_type=Path), help="Run with bundle/ and store/.")
@click.option("--items", type=click.IntRange(1000), default=1_000_000, show_default=True, help="Without --run.")
@click.option("--sessions", "count", type=click.IntRange(10), default=200, show_default=True)
@click.option("--probes", default="8,16,32,64,128,256", show_default=True, help="Cells looked into, one row each.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write JSON here, and a plot beside it.")
def command(run_directory: Path | None, items: int, count: int, probes: str, out: Path | None) -> None:
    from benchmarks.load_report import finish
    from llmgr_core.ranker.approximate_snapshot import ApproximateSnapshot
    from llmgr_core.ranker.row_index import RowIndex
    from services.ranking.live_ranker import LiveRanker

    if run_directory is None:
        snapshot = clustered_snapshot(items)
    else:
        snapshot = LiveRanker.open(run_directory / "bundle", run_directory / "store").snapshot
    sessions = sessions_of(snapshot, count, clustered=run_directory is None)
    exact, exact_ms = timed(snapshot, sessions)
    started = time.process_time()
    index = RowIndex(snapshot.rows, cosine=snapshot.parts.cosine, probes=1)
    result: dict[str, Any] = {
        "benchmark": "approximate_ranking",
        "protocol": {
            "items": snapshot.num_items,
            "dimension": snapshot.rows.dimension,
            "rows": "of a run" if run_directory else f"random, in clusters of {ITEMS_PER_CLUSTER}",
            "sessions": count,
            "top_k": RANKED,
            "seed": SEED,
            "cells": index.cells,
            "threads": 1,
        },
        "build_cpu_seconds": round(time.process_time() - started, 2),
        "exact": exact_ms,
        "approximate": [],
    }
    click.echo(f"{snapshot.num_items:,} items, {index.cells} cells, built in {result['build_cpu_seconds']} s of processor time")
    click.echo(f"{'exact':<16} recall 1.0000   p50 {exact_ms['p50_ms']:8.3f} ms   p99 {exact_ms['p99_ms']:8.3f} ms")
    nothing = np.zeros(0, dtype=np.int64)
    last = np.arange(int(snapshot.num_items * (1 - TAIL_SHARE)), snapshot.num_items)
    for number in map(int, probes.split(",")):
        row: dict[str, Any] = {"probes": number}
        for name, tail in (("latency", nothing), ("with_full_tail", last)):
            approximate = ApproximateSnapshot.over(snapshot, index.looking_into(number), tail)
            found, row[name] = timed(approximate, sessions)
            if name == "latency":
                share = [np.isin(one, other).mean() for one, other in zip(exact, found, strict=True) if len(one)]
                row["recall"] = round(float(np.mean(share)), 4)
        result["approximate"].append(row)
        click.echo(
            f"{number:>6} probes    recall {row['recall']:.4f}   p50 {row['latency']['p50_ms']:8.3f} ms   p99 "
            f"{row['latency']['p99_ms']:8.3f} ms   with {TAIL_SHARE:.0%} of the items new: p50 "
            f"{row['with_full_tail']['p50_ms']:.3f} ms"
        )
    finish(result, out)


if __name__ == "__main__":
    command()
