"""Too much work, work that never ends, work nobody waits for any more."""

from __future__ import annotations

import threading
import time

from services.ranking.admission import SHORTEST_QUEUE, BoundedPool
from services.ranking.watchdog import Watchdog
from services.server.log_budget import LogBudget


def wait_until(condition, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


def test_the_queue_is_as_long_as_the_wait_allows():
    release = threading.Event()
    pool = BoundedPool(1, 1000, "test", longest_wait=0.1)
    try:
        for _ in range(50):
            pool.submit(release.wait)
        assert not pool.full
        for _ in range(200):
            pool.served(0.001)
        assert not pool.full
        for _ in range(200):
            pool.served(0.005)
        # Fifty calls of 5 ms are a quarter of a second, more than the tenth that a call may wait.
        assert pool.full
    finally:
        release.set()
        pool.shutdown()


def test_however_slow_rankings_are_a_few_are_always_taken_in():
    release = threading.Event()
    pool = BoundedPool(1, 1000, "test", longest_wait=0.1)
    try:
        for _ in range(300):
            pool.served(60.0)
        for taken_in in range(SHORTEST_QUEUE):
            assert not pool.full, taken_in
            pool.submit(release.wait)
        assert pool.full
    finally:
        release.set()
        pool.shutdown()


def test_a_flood_of_refusals_is_a_few_lines_that_say_how_many_there_were():
    moment = [0.0]
    budget = LogBudget(3, clock=lambda: moment[0])
    assert [budget.spend("full") for _ in range(5)] == [0, 0, 0, None, None]
    assert budget.spend("other") == 0
    moment[0] = 1.2
    assert [budget.spend("full") for _ in range(2)] == [2, 0]


def test_a_ranking_that_is_stuck_is_noticed_and_so_is_its_end():
    heard: list[bool] = []
    watchdog = Watchdog(0.2, heard.append)
    watchdog.start()
    try:
        # Many short ones, whatever they add up to, are no stuck one.
        end = time.monotonic() + 0.6
        while time.monotonic() < end:
            with watchdog.watched():
                time.sleep(0.005)
        assert heard == []
        with watchdog.watched():
            assert wait_until(lambda: heard == [True])
        assert wait_until(lambda: heard == [True, False])
    finally:
        watchdog.stop()
