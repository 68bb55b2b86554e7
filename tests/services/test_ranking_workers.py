"""Several processes on one port: one table in memory, and a process that is stuck is replaced."""

from __future__ import annotations

import errno
import os
import re
import signal
import time
from pathlib import Path

import pytest
from bundle_fixture import free_port_settings, put
from patience import PATIENCE, rank_from, wait_until
from rounds import rounds

from services.client import RankingClient
from services.client.calls import RetryPolicy
from services.client.local_server import ServerProcess
from services.load.process_usage import memory
from services.ranking.array_directory import IN_MEMORY, PREFIX, USERS_NAME
from services.ranking.synthetic_bundle import SyntheticBundle
from services.ranking.workers import Workers

BIG_ITEMS = 80_000
ROWS_BYTES = BIG_ITEMS * 65 * 4


def options(bundle: Path, store: Path) -> list[str]:
    """Of `llmgr serve ranking` with two workers."""
    changed = {"bundle_poll_s": 0.1, "drain_s": 2.0, "exit_when_stuck_s": 0}
    overrides = [part for name, value in changed.items() for part in ("--set", f"serve.{name}={value}")]
    return ["--bundle", str(bundle), "--store", str(store), "--workers", "2", *overrides]


def mapped_bytes(pid: int) -> tuple[int, int]:
    """Bytes that a process maps from the arrays' directory, and its share of them (PSS)."""
    resident = proportional = 0
    ours = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"^[0-9a-f]+-[0-9a-f]+ ", line):
            ours = PREFIX in line
        elif ours and line.startswith("Rss:"):
            resident += int(line.split()[1]) * 1024
        elif ours and line.startswith("Pss:"):
            proportional += int(line.split()[1]) * 1024
    return resident, proportional


@pytest.mark.slow
def test_two_workers_hold_one_table(tmp_path):
    bundle = tmp_path / "bundle"
    SyntheticBundle(BIG_ITEMS, clicks_per_item=1).write(bundle)
    with ServerProcess("ranking", tmp_path, *options(bundle, tmp_path / "none")) as server:
        pids = server.facts["pids"]
        with RankingClient(server.address, timeout=PATIENCE) as client:
            assert len(client.rank(["item-1"]).items) == 20
        for pid in pids:
            resident, proportional = mapped_bytes(pid)
            # Rows and ID vectors, all but the last block of rows, and of each the half belongs to the other worker.
            assert resident > 1.8 * ROWS_BYTES
            assert proportional == pytest.approx(resident / 2, rel=0.05)
        # What a worker has for itself is what any worker has, without a table.
        held = [memory(pid) for pid in pids]
    alone = tmp_path / "alone"
    alone.mkdir()
    SyntheticBundle(1000, clicks_per_item=1).write(alone / "bundle")
    with ServerProcess("ranking", alone, *options(alone / "bundle", tmp_path / "none")) as server:
        empty = [memory(pid).private for pid in server.facts["pids"]]
    names = BIG_ITEMS * 300
    assert max(one.private for one in held) < max(empty) + names + 0.5 * ROWS_BYTES


@rounds(5)
def test_fault_kill_9_ranking_worker_is_replaced_and_all_answer_alike(catalogue, tmp_path):
    """120 items fill no block of rows, but weights are shared; edits and a new bundle reach both workers."""
    once = RetryPolicy(attempts=8)
    with ServerProcess("ranking", tmp_path, *options(catalogue.bundle, catalogue.store)) as server:
        pids = server.facts["pids"]
        mine = {next(IN_MEMORY.glob(f"{PREFIX}*/{USERS_NAME}/{pid}")).parents[1] for pid in pids}
        assert len(mine) == 1

        def answers(sequence: int = 0) -> set:
            found = set()
            for _ in range(12):
                # A connection of its own each time, so that the kernel chooses among the workers again.
                with RankingClient(server.address, timeout=PATIENCE, retry=once) as client:
                    ranking = rank_from(client, sequence, ["item-1", "item-2"], top_k=5)
                    found.add((ranking.model_version, tuple(item.item_id for item in ranking.items)))
            return found

        first = answers()
        assert len(first) == 1
        with catalogue.writer() as writer:
            sequence = put(writer, "item-5", seed=999).sequence
        assert len(answers(sequence)) == 1
        catalogue.write_bundle(seed=2)
        wait_until(lambda: len(now := answers()) == 1 and now.isdisjoint(first))
        # A worker that is killed is replaced, and its successor shares again.
        os.kill(pids[0], signal.SIGKILL)
        users = next(iter(mine)) / USERS_NAME
        wait_until(lambda: len({path.name for path in users.iterdir()} - {str(pids[0])}) == 2, "no successor came")
        wait_until(lambda: len(answers()) == 1)
    assert not any(path.exists() for path in mine)


def test_a_worker_is_replaced_once_a_process_can_be_started_again(catalogue, monkeypatch):
    workers = Workers(catalogue.bundle, catalogue.store, free_port_settings(workers=1, exit_when_stuck_s=0))
    try:
        (facts,) = workers.start()
        launch, refused = workers._launch, []

        def short_of_memory(number):
            if len(refused) < 2:
                refused.append(number)
                raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
            return launch(number)

        monkeypatch.setattr(workers, "_launch", short_of_memory)
        os.kill(facts["pid"], signal.SIGKILL)
        with RankingClient(f"127.0.0.1:{workers.port}", timeout=PATIENCE, retry=RetryPolicy(attempts=100)) as client:
            assert client.rank(["item-1"]).items
        assert refused == [0, 0]
    finally:
        workers.stop()


@pytest.mark.slow
def test_workers_are_replaced_where_the_process_that_forked_them_is_killed(catalogue, tmp_path):
    """Nobody can tell any more when one of them dies: all are replaced, and the old ones end."""
    with ServerProcess("ranking", tmp_path, *options(catalogue.bundle, catalogue.store)) as server:
        old = {str(pid) for pid in server.facts["pids"]}
        users = next(IN_MEMORY.glob(f"{PREFIX}*/{USERS_NAME}/{next(iter(old))}")).parent
        forking = {int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in old}
        assert forking.isdisjoint({server.process.pid})
        assert len(forking) == 1
        # To all processes of a service, as service managers stop one: it stays until the workers have drained.
        os.kill(*forking, signal.SIGTERM)
        time.sleep(0.5)
        assert {path.name for path in users.iterdir()} == old
        os.kill(*forking, signal.SIGKILL)
        wait_until(
            lambda: len(new := {path.name for path in users.iterdir()}) == 2 and new.isdisjoint(old), "no successors came"
        )
        wait_until(lambda: all(ended(pid) for pid in old), "a worker outlived the one who could have stopped it")
        with RankingClient(server.address, timeout=PATIENCE, retry=RetryPolicy(attempts=8)) as client:
            assert len(client.rank(["item-1"], top_k=5).items) == 5


def ended(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
