"""Ranking processes on cores of their own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from patience import PATIENCE
from server_process import places

from llmgr_core.store import Delete
from services.client import RankingClient
from services.client.local_server import ServerProcess
from services.ranking.own_core import BACKGROUND_NICENESS

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs two cores to choose from"
)

# Claims are of the whole machine; these are told apart from those of servers that run on it beside the tests.
CLAIM = """
import json, os, socket, sys, threading
from services.ranking.own_core import OwnCore
bind = socket.socket.bind
socket.socket.bind = lambda claim, name: bind(claim, name + sys.argv[1])
waiting = threading.Event()
older = threading.Thread(target=waiting.wait)
older.start()
core = OwnCore()
core.claim()
held = [sorted(os.sched_getaffinity(thread.native_id)) for thread in (threading.main_thread(), older)]
loader = threading.Thread(target=lambda: (core.step_back(), loaded.set(), waiting.wait()))
loaded = threading.Event()
loader.start()
loaded.wait()
niceness = [os.getpriority(os.PRIO_PROCESS, one.native_id) for one in (threading.main_thread(), older, loader)]
waiting.set()
print(json.dumps({"core": core.core, "held": held, "niceness": niceness}), flush=True)
sys.stdin.read()
"""


class Claimant:
    """A process that claims a core and holds it until its standard input ends."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", CLAIM, f"-{os.getpid()}"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        # What stands before it is the log.
        self.facts = json.loads(next(line for line in self.process.stdout if line.startswith("{")))

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def test_each_process_has_another_core_and_the_next_one_gets_none():
    cores = sorted(os.sched_getaffinity(0))
    claimants = []
    try:
        claimants += [Claimant() for _ in cores]
        for one in claimants:
            core = one.facts["core"]
            assert one.facts["held"] == [[core]] * 2, "every thread, also one that ran before"
            usual = one.facts["niceness"][0]
            assert one.facts["niceness"] == [usual, usual, max(usual, BACKGROUND_NICENESS)], "the loading one alone"
        assert sorted(one.facts["core"] for one in claimants) == cores
        claimants.append(Claimant())
        assert claimants[-1].facts["core"] is None
        assert claimants[-1].facts["held"][0] == cores
        assert len(set(claimants[-1].facts["niceness"])) == 1, "on cores shared with others nobody steps back"
    finally:
        for one in claimants:
            one.end()


def test_a_killed_process_leaves_its_core_to_the_next():
    first = Claimant()
    others = []
    try:
        while (other := Claimant()).facts["core"] is not None:
            others.append(other)
        others.append(other)
        first.end()
        others.append(Claimant())
        assert others[-1].facts["core"] == first.facts["core"] is not None
    finally:
        for one in (first, *others):
            one.end()


def test_a_server_keeps_to_its_core_and_follows_the_store_there(catalogue, tmp_path):
    with catalogue.writer() as writer:
        writer.write([Delete("item-1")])
    options = (*places(catalogue), "--workers", "1", "--own-core")
    with ServerProcess("ranking", tmp_path, *options) as server, RankingClient(server.address, timeout=PATIENCE) as client:
        (pid,) = server.facts["pids"]
        held = set()
        for task in Path(f"/proc/{pid}/task").iterdir():
            # A thread may have ended since.
            with contextlib.suppress(ProcessLookupError):
                held.add(tuple(sorted(os.sched_getaffinity(int(task.name)))))
        assert len(held) == 1, "all threads on the same core, or, where others hold them all, on all"
        assert "item-1" not in [one.item_id for one in client.rank(["item-2"]).items]
