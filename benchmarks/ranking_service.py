"""How long a ranking takes: in process, and as a call over loopback beside a call that does nothing.

    python benchmarks/ranking_service.py                                a bundle of random weights, 12,101 items
    python benchmarks/ranking_service.py --run runs/beauty              the bundle and the store of a run
    python benchmarks/ranking_service.py --out results.json

In process: ``Snapshot.rank`` of one session on one thread. Over loopback: one client, one call at a time, servers in processes
of their own; RankSession and the no-op take turns in blocks, so that both meet the same machine. Each figure is the median over
the repeats of that repeat's own quantile.
"""

# Threads are counted when NumPy is loaded, so that they have to be set before.
# ruff: noqa: E402

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import numpy as np

TARGET_IN_PROCESS_MS = 0.5
TARGET_CALL_MS = 2.0
CLICKS = (1, 2, 2, 3, 3, 4, 5, 6, 8, 12)
TEXT_DIMENSION = 384
NO_OP_SERVER = Path(__file__).with_name("no_op_server.py")
NO_OP_METHOD = "/benchmark.NoOp/Call"


def synthetic_run(root: Path, items: int, text_dimension: int = TEXT_DIMENSION) -> None:
    """A bundle and a full store of random numbers, seed 1; with no text dimension a bundle of IDs alone, without a store."""
    from llmgr_core.store import EmbeddedText, Encoder, Put, StoreWriter
    from services.ranking.synthetic_bundle import SyntheticBundle

    fingerprint = "synthetic"
    SyntheticBundle(items, text_dimension, fingerprint).write(root / "bundle")
    if not text_dimension:
        return
    random = np.random.default_rng(1)
    with StoreWriter.open(root / "store") as writer:
        writer.activate(Encoder(fingerprint, text_dimension, "random numbers"))
        for start in range(0, items, 4096):
            texts = [
                EmbeddedText.of(fingerprint, f"text {index}", random.normal(size=text_dimension))
                for index in range(start, min(start + 4096, items))
            ]
            writer.write([Put(f"item-{start + place}", b"{}", (text,)) for place, text in enumerate(texts)])


def make_sessions(popularity: np.ndarray, count: int) -> list[np.ndarray]:
    """Sessions of 1 to 12 clicks (mean 4.6) of items drawn by their training clicks."""
    random = np.random.default_rng(2)
    share = (popularity + 1) / (popularity + 1).sum()
    lengths = random.choice(CLICKS, count)
    return [random.choice(len(share), length, p=share).astype(np.int64) for length in lengths]


def milliseconds(call: Callable[[Any], object], arguments: list[Any]) -> np.ndarray:
    """Time of each call, float64 [n]."""
    times = np.empty(len(arguments))
    for place, argument in enumerate(arguments):
        started = time.perf_counter_ns()
        call(argument)
        times[place] = time.perf_counter_ns() - started
    return times / 1e6


def summary(repeats: list[np.ndarray]) -> dict[str, float]:
    """Median over the repeats of each repeat's quantiles."""
    quantiles = np.median([np.quantile(one, [0.5, 0.9, 0.99]) for one in repeats], axis=0)
    return {name: round(float(value), 4) for name, value in zip(("p50_ms", "p90_ms", "p99_ms"), quantiles, strict=True)}


@dataclasses.dataclass
class NoOpServer:
    """A no-op server in a process of its own."""

    address: str
    pid: int


def start_no_op_server(stack: ExitStack) -> NoOpServer:
    """Start one; it ends with the stack."""
    process = subprocess.Popen([sys.executable, str(NO_OP_SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    stack.callback(process.wait)
    stack.callback(process.stdin.close)
    return NoOpServer(f"127.0.0.1:{process.stdout.readline().strip()}", process.pid)


@click.command("ranking-service", help="Time of a ranking in process and over loopback, beside a no-op call.")
@click.option("--run", "run_directory", type=click.Path(file_okay=False, path_type=Path), help="Run with bundle/ and store/.")
@click.option("--items", type=click.IntRange(100), default=12_101, show_default=True, help="Size of the synthetic bundle.")
@click.option("--requests", type=click.IntRange(10), default=1000, show_default=True, help="Sessions in one repeat.")
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures here, as JSON.")
def command(run_directory: Path | None, items: int, requests: int, repeats: int, out: Path | None) -> None:
    import grpc

    from llmgr_core.evaluation.protocol import commit, machine
    from services.client.local_server import ServerProcess
    from services.contract import ranking_service_pb2 as messages
    from services.ranking.live_ranker import LiveRanker

    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        root = run_directory or scratch
        if run_directory is None:
            synthetic_run(root, items)
        started = time.perf_counter()
        ranker = LiveRanker.open(root / "bundle", root / "store")
        loading = time.perf_counter() - started
        snapshot = ranker.snapshot
        sessions = make_sessions(ranker.runtime.parts.popularity, requests)

        in_process = [milliseconds(lambda clicks: snapshot.rank(clicks, 20), sessions) for _ in range(repeats)]

        places = ("--bundle", str(root / "bundle"), "--store", str(root / "store"))
        ranking = grpc.insecure_channel(stack.enter_context(ServerProcess("ranking", scratch, *places)).address)
        no_op = grpc.insecure_channel(start_no_op_server(stack).address)
        rank_call = ranking.unary_unary(f"/{messages.DESCRIPTOR.services_by_name['RankingService'].full_name}/RankSession")
        no_op_call = no_op.unary_unary(NO_OP_METHOD)
        payloads = [
            messages.RankSessionRequest(item_ids=[snapshot.item_id(index) for index in clicks]).SerializeToString()
            for clicks in sessions
        ]
        milliseconds(rank_call, payloads[:50])
        milliseconds(no_op_call, payloads[:50])
        calls, floors = [], []
        for _ in range(repeats):
            calls.append(milliseconds(rank_call, payloads))
            floors.append(milliseconds(no_op_call, payloads))
        ranking.close()
        no_op.close()
        ranker.close()

    figures = {"in process": summary(in_process), "RankSession": summary(calls), "no-op call": summary(floors)}
    result = {
        "benchmark": "ranking_service",
        "protocol": {
            "items": snapshot.num_rankable,
            "dimension": snapshot.rows.dimension,
            "bundle": "of a run" if run_directory else "random weights",
            "sessions": "1 to 12 clicks (mean 4.6), items drawn by training clicks, seed 2",
            "top_k": 20,
            "requests": requests,
            "repeats": repeats,
            "threads": 1,
            "clients": 1,
            "statistic": "median over the repeats of each repeat's quantile",
        },
        "figures": figures,
        "targets": {"in process p50_ms": TARGET_IN_PROCESS_MS, "RankSession p50_ms": TARGET_CALL_MS},
        "reached": {
            "in process": figures["in process"]["p50_ms"] <= TARGET_IN_PROCESS_MS,
            "RankSession": figures["RankSession"]["p50_ms"] <= TARGET_CALL_MS,
        },
        "loading_seconds": round(loading, 3),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "commit": commit(),
        "machine": machine(),
    }
    print(f"{snapshot.num_rankable} items, loaded in {loading:.2f} s; medians of {repeats} repeats of {requests} sessions")
    for name, target in (("in process", TARGET_IN_PROCESS_MS), ("RankSession", TARGET_CALL_MS), ("no-op call", None)):
        line = "  ".join(f"{key.removesuffix('_ms')} {value:.3f} ms" for key, value in figures[name].items())
        print(f"{name:<12} {line}" + (f"   target p50 {target} ms" if target else ""))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    command()
