"""How soon a ranking server that was killed answers again.

    llmgr bench restart                                     12,101 random items and a store of their text vectors
    llmgr bench restart --run runs/beauty --out result.json bundle and store of a run
    llmgr bench restart --items 1000000 --text-dimension 0  a large table of IDs alone

Each round kills the server with SIGKILL under nobody's load and starts it again at once, as a service manager with no delay of
its own would, and asks health until it says SERVING; then one session is ranked. The floors are taken in the same round: Python
alone, and Python with the libraries that the server stands on. After that, one of two workers is killed in each round, and the
process that looks after them starts another: its page of metrics tells when that one serves. Files are in the page cache, as
they are after a crash of the process; after one of the machine they are read from the disk first.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import numpy as np

TARGET_SECONDS = {"up to 100,000 items": 2.0, "more": 5.0}
SMALL = 100_000
SYNTHETIC_ITEMS = 12_101
TEXT_DIMENSION = 384
SEED = 1  # of the session that is ranked after each start; ranking_service.synthetic_run has the same
CLICKS = 3
WORKERS = 2
POLL_SECONDS = 0.005
# Making the page is work for the core that the new worker starts on.
PAGE_POLL_SECONDS = 0.05
GIVE_UP_SECONDS = 300.0
LIBRARIES = "click, grpc, grpc_health.v1.health_pb2, lmdb, numpy, prometheus_client, pydantic, safetensors.numpy, structlog"
# Loopback is not asked for through a proxy that the environment names.
CHANNEL_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
RANKING_SERVICE = "llmgr.v1.RankingService"


def until(holds: Callable[[], bool], pause: float = POLL_SECONDS) -> None:
    end = time.monotonic() + GIVE_UP_SECONDS
    while not holds():
        if time.monotonic() > end:
            raise click.ClickException(f"the server did not serve within {GIVE_UP_SECONDS:.0f} s")
        time.sleep(pause)


def seconds_of(program: str) -> float:
    """Wall time of a Python program of one line, from exec to its end."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True)
    return time.perf_counter() - started


def is_serving(port: int) -> bool:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    try:
        # A refused connection costs no channel, and none that waits before it tries again.
        socket.create_connection(("127.0.0.1", port), 1.0).close()
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=CHANNEL_OPTIONS) as channel:
            request = health_pb2.HealthCheckRequest(service=RANKING_SERVICE)
            status = health_pb2_grpc.HealthStub(channel).Check(request, timeout=1.0).status
    except (OSError, grpc.RpcError):
        return False
    return bool(status == health_pb2.HealthCheckResponse.SERVING)


def one_ranking(port: int, session: list[str]) -> float:
    """Milliseconds of the first session that a client ranks, its connection included."""
    from services.client import RankingClient

    started = time.perf_counter()
    with RankingClient(f"127.0.0.1:{port}", timeout=10.0) as client:
        ranking = client.rank(session)
    assert ranking.items, "a server that says SERVING ranked nothing"
    return (time.perf_counter() - started) * 1e3


def kills_of_the_server(
    directory: Path, places: tuple[str, ...], session: list[str], rounds: int
) -> Iterator[dict[str, float]]:
    """Seconds and milliseconds of each round."""
    from services.client.local_server import ServerProcess
    from services.load.process_usage import cpu_seconds

    server = ServerProcess("ranking", directory, *places)
    try:
        port = server.wait().port
        for _ in range(rounds):
            one = {"Python": seconds_of("pass"), "Python and the libraries": seconds_of(f"import {LIBRARIES}")}
            killed = time.perf_counter()
            server.kill()
            started = time.perf_counter()
            server = ServerProcess("ranking", directory, *places, port=port)
            until(lambda: is_serving(port))
            serving = time.perf_counter()
            one |= {"kill to SERVING": serving - killed, "exec to SERVING": serving - started}
            one["processor time"] = cpu_seconds([server.process.pid])
            yield one | {"first ranking ms": one_ranking(port, session)}
    finally:
        server.kill()


def kills_of_a_worker(directory: Path, places: tuple[str, ...], rounds: int) -> Iterator[float]:
    """Seconds from the kill of a worker until another one in its place serves."""
    from services.client.local_server import ServerProcess

    options = (*places, "--workers", str(WORKERS), "--metrics-port", "0")
    left = rounds
    while left > 0:
        with ServerProcess("ranking", directory, *options) as server:
            page = f"http://127.0.0.1:{server.facts['metrics_ports'][0]}/metrics"
            # Those it started with: their successors' numbers are not told.
            for worker, pid in list(enumerate(server.facts["pids"]))[:left]:
                left -= 1
                yield seconds_to_a_successor(page, worker, pid)


def seconds_to_a_successor(page: str, worker: int, pid: int) -> float:
    killed = time.perf_counter()
    os.kill(pid, signal.SIGKILL)
    until(lambda: not worker_is_up(page, worker), PAGE_POLL_SECONDS)
    until(lambda: worker_is_up(page, worker), PAGE_POLL_SECONDS)
    return time.perf_counter() - killed


def worker_is_up(page: str, worker: int) -> bool:
    with direct.open(page, timeout=10.0) as reply:
        text = reply.read().decode("utf-8")
    found = re.search(rf'^llmgr_worker_up{{worker="{worker}"}} ([01])', text, re.MULTILINE)
    return found is not None and found[1] == "1"


def summary(values: list[float], digits: int = 3) -> dict[str, Any]:
    return {
        "median": round(statistics.median(values), digits),
        "worst": round(max(values), digits),
        "all": [round(value, digits) for value in values],
    }


@click.command("restart", help=(__doc__ or "").replace("\n\n    ", "\n\n\b\n    "))
@click.option("--run", "run_directory", type=click.Path(file_okay=False, path_type=Path), help="Run with bundle/ and store/.")
@click.option(
    "--items", type=click.IntRange(100), default=SYNTHETIC_ITEMS, show_default=True, help="Size of the random bundle."
)
@click.option(
    "--text-dimension",
    type=click.IntRange(0),
    default=TEXT_DIMENSION,
    show_default=True,
    help="Numbers in its text vectors; 0 makes a bundle of IDs alone, without a store.",
)
@click.option("--rounds", type=click.IntRange(1), default=20, show_default=True, help="Kills of the server, and of workers.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures here, as JSON.")
def command(run_directory: Path | None, items: int, text_dimension: int, rounds: int, out: Path | None) -> None:
    from benchmarks.ranking_service import synthetic_run
    from llmgr_core.bundle import Bundle
    from llmgr_core.evaluation.protocol import commit, machine

    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        root = run_directory or scratch
        if run_directory is None:
            synthetic_run(root, items, text_dimension)
        bundle = Bundle.open(root / "bundle", verify=False)
        items, by_ids = len(bundle.item_ids), not bundle.description.text_dimension
        session = [bundle.item_ids[index] for index in np.random.default_rng(SEED).integers(0, items, CLICKS)]
        del bundle
        places = ("--bundle", str(root / "bundle"), "--store", str(root / "store"))
        of_server = list(kills_of_the_server(scratch, places, session, rounds))
        of_worker = list(kills_of_a_worker(scratch, places, rounds))
        stored = (root / "store" / "data.mdb").stat().st_size if (root / "store" / "data.mdb").exists() else 0

    target = TARGET_SECONDS["up to 100,000 items" if items <= SMALL else "more"]
    figures = {name: summary([one[name] for one in of_server], 2 if name.endswith("ms") else 3) for name in of_server[0]}
    figures["kill of a worker to its successor's SERVING"] = summary(of_worker)
    result = {
        "benchmark": "restart",
        "protocol": {
            "bundle": "of a run" if run_directory else "random weights",
            "items": items,
            "text": "none, IDs alone" if by_ids else "a vector of each item in the store",
            "store_bytes": stored,
            "rounds": rounds,
            "workers": f"1 process; where a worker is killed, {WORKERS}",
            "from": "SIGKILL; the server is started again at once, a worker by its supervisor",
            "to": "the health service's SERVING; of a worker, its page of metrics, which comes after that",
            "poll_s": {"health": POLL_SECONDS, "page of metrics": PAGE_POLL_SECONDS},
            "unit": "seconds, but for those that say ms",
            "libraries": LIBRARIES,
            "session": f"{CLICKS} items at random",
            "seed": SEED,
        },
        "figures": figures,
        "targets": {"seconds to SERVING": target},
        "reached": {
            name: figures[name]["worst"] <= target
            for name in ("kill to SERVING", "kill of a worker to its successor's SERVING")
        },
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "commit": commit(),
        "machine": machine(),
    }
    click.echo(f"{items} items, {rounds} rounds; target {target:g} s to SERVING")
    for name, one in figures.items():
        unit = "ms" if name.endswith(" ms") else "s "
        click.echo(f"{name.removesuffix(' ms'):<46} median {one['median']:>8.3f} {unit}  worst {one['worst']:>8.3f} {unit}")
    for name, reached in result["reached"].items():
        click.echo(f"{'reached' if reached else 'MISSED ':<8} {name}")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    command()
