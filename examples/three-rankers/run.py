"""Three ranking hosts on one machine: ``python examples/three-rankers/run.py --run runs/demo``.

Starts an embedding server, Redis, a publisher, three rankers each with a replica of its own, and HAProxy before them. Inserts
an item, ranks it through HAProxy and on every ranker, kills Redis and brings it back, and stops one ranker while calls go on.
The run's own store is not touched: the embedding server writes to a copy. Ends with a line of JSON; --keep leaves it running.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmgr_core.data.item import Item
from services.client import EmbeddingClient, RankingClient
from services.client.calls import RetryPolicy

HERE = Path(__file__).parent
LLMGR = (sys.executable, "-c", "from llmgr_core.command_line.main import main; main()")
RANKERS = 3
NEW = Item("example-lamp", title="Brass reading lamp", description="A warm light for the evening.")


class Programs:
    """Programs that are stopped together, the last one first."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *command: str, **environment: str) -> None:
        with (self._directory / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **environment})

    def serve(self, name: str, service: str, *options: str) -> None:
        ready = self._directory / f"{name}.ready"
        ready.unlink(missing_ok=True)
        self.start(name, *LLMGR, "serve", service, "--metrics-port", "-1", "--ready-file", str(ready), *options)

    def facts(self, name: str) -> dict[str, Any]:
        ready = self._directory / f"{name}.ready"
        self.wait(ready.exists, name)
        return dict(json.loads(ready.read_text()))

    def wait(self, condition: Callable[[], object], name: str, seconds: float = 180.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end or self.running[name].poll() is not None:
                raise SystemExit(f"{name} did not start:\n{(self._directory / f'{name}.log').read_text(errors='replace')}")
            time.sleep(0.05)

    def stop(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        program = self.running.pop(name)
        program.send_signal(how)
        program.wait(60)

    def close(self) -> None:
        for name in reversed(list(self.running)):
            self.stop(name)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


def say(text: str) -> None:
    print(f"== {text}", flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--run", type=Path, default=Path("runs/demo"), help="run with a bundle and a store (make demo)")
    arguments.add_argument("--bundle", type=Path, help="bundle to serve; by default the run's own")
    arguments.add_argument("--store", type=Path, help="store to begin with; by default the run's own")
    arguments.add_argument("--keep", action="store_true", help="leave everything running until Ctrl-C")
    given = arguments.parse_args()
    bundle, store = given.bundle or given.run / "bundle", given.store or given.run / "store"
    for program in ("redis-server", "haproxy"):
        if shutil.which(program) is None:
            raise SystemExit(f"{program} is not installed: apt-get install redis-server haproxy")
    with tempfile.TemporaryDirectory(prefix="three-rankers-") as name, contextlib.ExitStack() as ending:
        directory = Path(name)
        programs = Programs(directory)
        ending.callback(programs.close)
        result = run(programs, directory, bundle, store)
        print(json.dumps(result), flush=True)
        if given.keep:
            say("running; Ctrl-C stops all")
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()


def run(programs: Programs, directory: Path, bundle: Path, store: Path) -> dict[str, object]:
    redis_port, front = free_port(), free_port()
    redis = f"redis://127.0.0.1:{redis_port}/0"

    def start_redis() -> None:
        options = ("--bind", "127.0.0.1", "--port", str(redis_port), "--dir", str(directory), "--save", "")
        programs.start("redis", "redis-server", *options)
        programs.wait(lambda: answers(redis_port), "redis")

    say("embedding server on a copy of the store, Redis, publisher")
    (directory / "store").mkdir()
    shutil.copy(store / "data.mdb", directory / "store")
    programs.serve("embedding", "embedding", "--bundle", str(bundle), "--store", str(directory / "store"), "--port", "0")
    start_redis()
    embedding = programs.facts("embedding")["address"]
    programs.serve("publisher", "publisher", "--store", str(directory / "store"), "--redis", redis)
    numbers = range(1, RANKERS + 1)
    say(f"{RANKERS} replicas, each with a store of its own, and a ranker on each")
    for number in numbers:
        programs.serve(f"replica-{number}", "replica", "--store", str(directory / f"replica-{number}"), "--redis", redis)
    for number in numbers:
        programs.facts(f"replica-{number}")
        options = (
            "--bundle",
            str(bundle),
            "--store",
            str(directory / f"replica-{number}"),
            "--port",
            "0",
            "--health-port",
            "0",
        )
        programs.serve(f"ranker-{number}", "ranking", *options, "--set", "serve.not_serving_s=2.0")
    facts = {number: programs.facts(f"ranker-{number}") for number in numbers}
    rankers = {f"RANKER_{number}": str(one["address"]) for number, one in facts.items()}
    health = {f"HEALTH_{number}": str(one["health_port"]) for number, one in facts.items()}
    say("HAProxy before them")
    programs.start("haproxy", "haproxy", "-f", str(HERE / "haproxy.cfg"), LISTEN=f"127.0.0.1:{front}", **rankers, **health)
    programs.wait(lambda: answers(front), "haproxy")
    time.sleep(2.0)

    with EmbeddingClient(embedding, timeout=60.0) as inserts:
        once = RetryPolicy(attempts=1)
        with RankingClient(f"127.0.0.1:{front}", timeout=10.0, retry=once) as through:
            say("insert an item; rank it through HAProxy, with min_sequence, and on each ranker")
            sequence = inserts.embed(NEW).sequence
            started = time.monotonic()
            found = ranked(through, sequence)
            seconds = time.monotonic() - started
            everywhere = []
            for address in rankers.values():
                with RankingClient(address, timeout=10.0) as one:
                    everywhere.append(ranked(one, sequence))
            say("Redis dies; rankings go on; it comes back with nothing, and the changes of meanwhile arrive")
            programs.stop("redis", signal.SIGKILL)
            sequence = inserts.delete(NEW.item_id).sequence
            for _ in range(50):
                through.rank([NEW.item_id])
            start_redis()
            gone = []
            for address in rankers.values():
                with RankingClient(address, timeout=10.0) as one:
                    end = time.monotonic() + 30.0
                    while one.info().sequence < sequence and time.monotonic() < end:
                        time.sleep(0.05)
                    gone.append(one.info().sequence >= sequence)
            say("one ranker stops (SIGTERM) while calls go on")
            stopping = threading.Thread(target=programs.stop, args=("ranker-1",))
            stopping.start()
            calls = 0
            while stopping.is_alive():
                through.rank([])
                calls += 1
            stopping.join()
    return {
        "ranked_through_haproxy": found,
        "seconds_until_ranked": round(seconds, 3),
        "ranked_on_each_ranker": everywhere,
        "caught_up_after_redis_died": gone,
        "calls_while_a_ranker_stopped": calls,
        "failed_calls": 0,
    }


def ranked(client: RankingClient, sequence: int) -> bool:
    """Whether the new item is ranked; waits for the change that brought it."""
    ranking = client.rank([], top_k=1, candidate_ids=[NEW.item_id], min_sequence=sequence)
    return [item.item_id for item in ranking.items] == [NEW.item_id]


if __name__ == "__main__":
    main()
