"""RankSession under load, beside what no server can be faster than.

    llmgr bench ranking                                     12,101 random items, 250, 500 and 1,000 sessions a second
    llmgr bench ranking --run runs/beauty --out result.json bundle, store and session lengths of a run; plots beside result.json
    llmgr bench ranking --items 1000000 --rates 50,150

Floors, measured in the same minutes: the bare product of the table with one vector, a ranking in process, and a call that does
nothing through the same gRPC stack under the same load. Loads are Poisson arrivals timed from when each call was due; the
client is a process of its own. Then what the server does at most, three times that, and a change of the bundle under load.
"""

# Threads are counted when NumPy is loaded, so that they have to be set before.
# ruff: noqa: E402

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

import dataclasses
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.no_op_server import METHOD as NO_OP_METHOD
from benchmarks.ranking_service import milliseconds, start_no_op_server

RANK_SESSION = "/llmgr.v1.RankingService/RankSession"
SERENADE_ITEMS = 12_101
LARGE = 500_000
TARGETS = {
    "rate": 1000,
    "latency": {"p50_ms": 2.0, "p99_ms": 8.0},
    "cpu_factor": 2.0,
    "scan_factor": 1.5,
    "large": {"rate": 150, "p99_ms": 50.0},
    "goodput_share": 0.9,
    "shed_p99_ms": 5.0,
    "seconds_to_normal": 2.0,
    "resident_growth": 0.05,
    "swap_p99_factor": 1.5,
}
CLOSED_LOOP_CALLS = 64
TIMEOUT = 1.0


@dataclasses.dataclass
class Scene:
    """What every stage of the benchmark works with."""

    snapshot: Any
    server: Any
    method: Any
    no_op_pid: int
    no_op_method: Any
    requests: list[bytes]
    random: np.random.Generator
    connections: int

    def plan(self, method: Any, rate: float, seconds: float) -> Any:
        from services.load.plan import LoadPlan, poisson_times

        times = poisson_times(rate, seconds, self.random)
        return LoadPlan.of_one(method, times, self.requests, timeout=TIMEOUT, connections=self.connections)

    def closed_loop(self, method: Any, calls: int, in_flight: int) -> Any:
        from services.load.open_loop import run_apart
        from services.load.plan import LoadPlan

        return run_apart(
            LoadPlan.of_one(
                method, np.zeros(calls), self.requests, timeout=30.0, in_flight=in_flight, connections=self.connections
            )
        )


def with_server_cpu(pids: list[int], call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns, and the processor time that these processes used meanwhile."""
    from services.load.process_usage import cpu_seconds

    before = cpu_seconds(pids)
    result = call()
    return result, cpu_seconds(pids) - before


def floors(scene: Scene, sessions: list[np.ndarray]) -> dict[str, Any]:
    """In process: the bare product, and whole rankings."""
    from services.load.outcomes import quantiles

    snapshot = scene.snapshot
    rows = np.ascontiguousarray(scene.random.normal(size=(snapshot.num_items, snapshot.rows.dimension)), dtype=np.float32)
    vector, out = rows[0].copy(), np.empty(len(rows), dtype=np.float32)
    rounds = list(range(200 if snapshot.num_items < LARGE else 30))
    scan = milliseconds(lambda _: np.dot(rows, vector, out=out), rounds)
    chosen = sessions[:: max(len(sessions) // 1000, 1)] if snapshot.num_items < LARGE else sessions[:60]
    cpu = time.process_time()
    ranked = milliseconds(lambda clicks: snapshot.rank(clicks, 20), chosen)
    return {
        "raw scan": quantiles(scan),
        "in process": quantiles(ranked),
        "in process cpu_us": round((time.process_time() - cpu) / len(chosen) * 1e6, 1),
    }


def one_at_a_time(scene: Scene, method: Any, calls: int) -> dict[str, Any]:
    from services.load.outcomes import quantiles

    outcomes = scene.closed_loop(method, calls, 1)
    return quantiles((outcomes.finished - outcomes.sent)[len(outcomes) // 10 :] * 1e3)


def load(scene: Scene, rate: float, seconds: float) -> dict[str, Any]:
    """One rate: first the call that does nothing, then RankSession. Processor time is by the calls that were answered."""
    from services.load.open_loop import run_apart

    floor, floor_cpu = with_server_cpu(
        [scene.no_op_pid], lambda: run_apart(scene.plan(scene.no_op_method, rate, min(seconds, 15.0)))
    )
    outcomes, cpu = with_server_cpu(scene.server.facts["pids"], lambda: run_apart(scene.plan(scene.method, rate, seconds)))
    return {
        "rate": rate,
        "seconds": seconds,
        "latency": outcomes.summary(),
        "floor": floor.summary(),
        "curve": outcomes.curve(),
        "floor_curve": floor.curve(),
        "server_cpu_us": round(cpu / max(int(outcomes.ok.sum()), 1) * 1e6, 1),
        "floor_cpu_us": round(floor_cpu / len(floor) * 1e6, 1),
        "client_cpu_us": round(outcomes.client_cpu_seconds / len(outcomes) * 1e6, 1),
    }


def overload(scene: Scene, peak: float, multiple: float, seconds: float) -> dict[str, Any]:
    from services.load.open_loop import run_apart
    from services.load.overload import Overload
    from services.load.process_usage import memory

    stretch = Overload(peak, 0.4 * peak, multiple, during=seconds, before=min(5.0, seconds), after=min(10.0, 2 * seconds))
    pids = scene.server.facts["pids"]
    before = sum(memory(pid).resident for pid in pids)
    figures = stretch.figures(run_apart(stretch.plan(scene.method, scene.requests, scene.random, scene.connections)))
    return figures | {"resident_growth": round(sum(memory(pid).resident for pid in pids) / before - 1.0, 4)}


def another_version(path: Path, other: Path) -> None:
    """The same ranker with another temperature: another version whose loading takes as long."""
    from llmgr_core.artefacts import draft_artefact
    from llmgr_core.bundle import Bundle, write_bundle

    bundle = Bundle.open(path, verify=False)
    scoring = bundle.description.scoring.model_copy(update={"temperature": bundle.description.scoring.temperature * 1.01})
    description = bundle.description.model_copy(update={"scoring": scoring})
    ranker = dataclasses.replace(bundle.ranker, description=description)
    with draft_artefact(other, "bundle", [], {"benchmark": "another version"}) as draft:
        write_bundle(draft.path, ranker, bundle.item_ids, cleaner_state=bundle.cleaner_state, engine=bundle.engine)


def swap(scene: Scene, bundle: Path, other: Path, rate: float, seconds: float) -> dict[str, Any]:
    """Another bundle in the place of the served one, a third into the load."""
    from services.client import RankingClient
    from services.load.open_loop import run_apart

    before = ""
    moments: dict[str, float] = {}

    def exchange(client: RankingClient) -> None:
        time.sleep(seconds / 3)
        moments["replaced"] = time.monotonic()
        bundle.rename(bundle.with_name("bundle.before"))
        other.rename(bundle)
        while client.info().model_version == before and time.monotonic() < moments["replaced"] + seconds:
            time.sleep(0.1)
        moments["served"] = time.monotonic()

    with RankingClient(scene.server.address, timeout=10.0) as client:
        before = client.info().model_version
        exchanging = threading.Thread(target=exchange, args=(client,))
        exchanging.start()
        outcomes = run_apart(scene.plan(scene.method, rate, seconds))
        exchanging.join()
        after = client.info().model_version
    start, end = (moments[name] - outcomes.started_at for name in ("replaced", "served"))
    usual, during = outcomes.between(1.0, start), outcomes.between(start, end + 1.0)
    slowest, usually = during.summary()["p99_ms"], usual.summary()["p99_ms"]
    return {
        "rate": rate,
        "exchanged": before != after,
        "seconds": round(end - start, 2),
        "before": usual.summary(),
        "during": during.summary(),
        "p99_factor": round(slowest / usually, 2) if slowest and usually else None,
        "statuses": outcomes.statuses(),
    }


def judged(result: dict[str, Any]) -> dict[str, bool]:
    """Which targets were reached; those that this run does not measure are left out."""
    targets, found = result["targets"], {}
    for one in result["loads"]:
        if one["rate"] == targets["rate"]:
            found |= {name: one["latency"][name] <= value for name, value in targets["latency"].items()}
            found["no errors"] = set(one["latency"]["statuses"]) == {"OK"}
            floor = one["floor_cpu_us"] + result["floors"]["in process cpu_us"]
            found["cpu_factor"] = one["server_cpu_us"] <= targets["cpu_factor"] * floor
    if result["protocol"]["items"] >= LARGE:
        scan = result["floors"]["raw scan"]["p50_ms"]
        found["scan_factor"] = result["one at a time"]["RankSession"]["p50_ms"] <= targets["scan_factor"] * scan
        for one in result["loads"]:
            if one["rate"] == targets["large"]["rate"]:
                found["large p99_ms"] = within(one["latency"]["p99_ms"], targets["large"]["p99_ms"])
    if "overload" in result:
        over = result["overload"]
        found["goodput_share"] = over["goodput_share"] >= targets["goodput_share"]
        found["admitted in time"] = within(over["admitted"]["p99_ms"], over["timeout_ms"])
        # Where nothing was refused, nothing was refused late.
        found["shed_p99_ms"] = over["shed"]["p99_ms"] is None or within(over["shed"]["p99_ms"], targets["shed_p99_ms"])
        found["seconds_to_normal"] = within(over["seconds_to_normal"], targets["seconds_to_normal"])
        found["resident_growth"] = within(over["resident_growth"], targets["resident_growth"])
    if "swap" in result:
        found["swap without errors"] = set(result["swap"]["statuses"]) == {"OK"}
        found["swap_p99_factor"] = within(result["swap"]["p99_factor"], targets["swap_p99_factor"])
    return found


def within(measured: float | None, bound: float) -> bool:
    """Whether a figure was measured and is no larger."""
    return measured is not None and measured <= bound


@click.command("ranking", help=(__doc__ or "").replace("\n\n    ", "\n\n\b\n    "))
@click.option("--run", "run_directory", type=click.Path(file_okay=False, path_type=Path), help="Run with bundle/ and store/.")
@click.option(
    "--items", type=click.IntRange(1000), default=SERENADE_ITEMS, show_default=True, help="Random items, without --run."
)
@click.option("--rates", default="250,500,1000", show_default=True, help="Sessions a second, one load each.")
@click.option("--seconds", type=click.FloatRange(1.0), default=60.0, show_default=True, help="Length of each load.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Server processes.")
@click.option("--own-core/--any-core", default=True, show_default=True, help="As `llmgr serve ranking` takes it.")
@click.option("--connections", type=click.IntRange(1), default=4, show_default=True, help="Connections of the client.")
@click.option("--overload", "multiple", type=float, default=3.0, show_default=True, help="Times the peak; 0 leaves it out.")
@click.option("--overload-seconds", type=click.FloatRange(1.0), default=30.0, show_default=True)
@click.option("--swap-rate", type=float, default=500.0, show_default=True, help="Load during a new bundle; 0 leaves it out.")
@click.option("--seed", default=2, show_default=True, help="Of arrivals and sessions.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write JSON here, and plots beside it.")
def command(
    run_directory: Path | None,
    items: int,
    rates: str,
    seconds: float,
    workers: int,
    own_core: bool,
    connections: int,
    multiple: float,
    overload_seconds: float,
    swap_rate: float,
    seed: int,
    out: Path | None,
) -> None:
    from benchmarks.load_report import finish, print_ranking
    from llmgr_core.artefacts import open_artefact
    from llmgr_core.data.dataset import Dataset
    from services.client.local_server import ServerProcess
    from services.load.plan import Method
    from services.load.session_source import SessionSource
    from services.ranking.live_ranker import LiveRanker
    from services.ranking.synthetic_bundle import SyntheticBundle

    random = np.random.default_rng(seed)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bundle, store = scratch / "bundle", scratch / "no-store"
        trained_on = None
        if run_directory is None:
            SyntheticBundle(items, clicks_per_item=10 if items < LARGE else 2).write(bundle)
        else:
            shutil.copytree(run_directory / "bundle", bundle)
            store = run_directory / "store"
            if (run_directory / "dataset").is_dir():
                trained_on = Dataset.open(open_artefact(run_directory / "dataset", "dataset")).train
        started = time.perf_counter()
        ranker = LiveRanker.open(bundle, store)
        loading = time.perf_counter() - started
        source = SessionSource.from_bundle(ranker.runtime.parts, trained_on)
        drawn = source.draw(5000, np.random.default_rng(seed))
        requests = source.requests(5000, np.random.default_rng(seed))
        places = ("--bundle", str(bundle), "--store", str(store), "--workers", str(workers))
        places += ("--own-core" if own_core else "--any-core",)
        server = stack.enter_context(ServerProcess("ranking", scratch, *places))
        no_op = start_no_op_server(stack)
        no_op_method = Method.at("no-op", no_op.address, NO_OP_METHOD)
        method = Method.at("RankSession", server.address, RANK_SESSION)
        scene = Scene(ranker.snapshot, server, method, no_op.pid, no_op_method, requests, random, connections)

        protocol = {
            "items": scene.snapshot.num_rankable,
            "dimension": scene.snapshot.rows.dimension,
            "bundle": "of a run" if run_directory else "random weights, no text",
            "sessions": source.origin,
            "mean_clicks": round(float(np.mean([len(one) for one in drawn])), 2),
            "top_k": 20,
            "arrivals": "Poisson, timed from when each call was due",
            "workers": workers,
            "own_core": own_core,
            "connections": connections,
            "timeout_s": TIMEOUT,
            "seed": seed,
        }
        result: dict[str, Any] = {
            "benchmark": "ranking_load",
            "method": "RankSession",
            "protocol": protocol,
            "targets": TARGETS,
        }
        result["title"] = f"RankSession, {protocol['items']:,} items, {workers} worker{'s' * (workers > 1)}"
        result["loading_seconds"] = round(loading, 3)
        result["floors"] = floors(scene, [scene.snapshot.indices(session) for session in drawn])
        singles = 1000 if items < LARGE else 60
        result["one at a time"] = {
            "no-op call": one_at_a_time(scene, no_op_method, singles),
            "RankSession": one_at_a_time(scene, method, singles),
        }
        result["loads"] = [load(scene, float(rate), seconds) for rate in rates.split(",") if rate]
        closed = scene.closed_loop(method, max(singles, int(5 * 1e3 / result["one at a time"]["RankSession"]["p50_ms"])), 64)
        result["peak_per_s"] = round(float(closed.ok.sum()) / closed.seconds, 1)
        if multiple:
            result["overload"] = overload(scene, result["peak_per_s"], multiple, overload_seconds)
        if swap_rate:
            another_version(bundle, scratch / "other")
            result["swap"] = swap(scene, bundle, scratch / "other", swap_rate, max(seconds / 2, 6.0))
        ranker.close()
    result["reached"] = judged(result)
    print_ranking(result)
    finish(result, out)


if __name__ == "__main__":
    command()
