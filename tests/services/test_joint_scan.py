"""One pass over a large table for several rankings."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from bundle_fixture import free_port_settings
from patience import PATIENCE, wait_until

from llmgr_core.ranker.item_rows import BLOCK_ROWS, ItemRows
from llmgr_core.ranker.snapshot import scanned
from services.client import RankingClient
from services.ranking.joint_scan import JointScan, ScanTurn, ScoreArrays
from services.ranking.server import RankingServer

COUNT = BLOCK_ROWS + 100


def table(seed: int) -> ItemRows:
    return ItemRows.from_array(np.random.default_rng(seed).normal(size=(COUNT, 8)).astype(np.float32))


def queries(count: int) -> np.ndarray:
    return np.random.default_rng(9).normal(size=(count, 8)).astype(np.float32)


class Stage:
    """Threads that want scores, the first of which stops in the middle of its pass until it is told to go on."""

    def __init__(self, most: int = 8) -> None:
        self.slots = threading.BoundedSemaphore(1)
        self.passes: list[int] = []
        self.scan = JointScan(self.slots, 1, most, self.passes.append)
        self.go_on, self.reached = threading.Event(), threading.Event()
        self.scores: dict[int, np.ndarray] = {}
        self.failures: dict[int, BaseException] = {}
        self.threads: list[threading.Thread] = []

    def hold(self) -> None:
        self.reached.set()
        assert self.go_on.wait(PATIENCE)

    def want(self, number: int, rows: ItemRows, query: np.ndarray, cosine: bool = True, between=None) -> None:
        def run() -> None:
            with self.slots:
                try:
                    with ScanTurn(self.scan) as turn:
                        self.scores[number] = turn(rows, query, cosine, between).copy()
                except BaseException as error:
                    self.failures[number] = error

        self.threads.append(threading.Thread(target=run))
        self.threads[-1].start()

    def until_waiting(self, count: int) -> None:
        wait_until(lambda: len(self.scan._waiting) >= count)

    def finish(self) -> None:
        self.go_on.set()
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()


@pytest.mark.parametrize("cosine", [True, False])
def test_those_who_come_during_a_pass_share_the_next_one(cosine):
    stage, rows, asked = Stage(), table(1), queries(4)
    stage.want(0, rows, asked[0], cosine, stage.hold)
    assert stage.reached.wait(PATIENCE)
    for number in (1, 2, 3):
        stage.want(number, rows, asked[number], cosine)
    stage.until_waiting(3)
    stage.finish()
    assert stage.passes == [1, 3]
    for number, query in enumerate(asked):
        np.testing.assert_allclose(stage.scores[number], scanned(rows, query, cosine, None), rtol=1e-5, atol=1e-5)


def test_no_pass_is_for_more_than_the_most_nor_for_two_tables():
    stage, rows, other, asked = Stage(most=2), table(1), table(2), queries(5)
    stage.want(0, rows, asked[0], True, stage.hold)
    assert stage.reached.wait(PATIENCE)
    for number, where in enumerate((rows, other, rows, rows), start=1):
        stage.want(number, where, asked[number])
        stage.until_waiting(number)
    stage.finish()
    assert stage.passes == [1, 2, 1, 1]
    for number, where in enumerate((rows, rows, other, rows, rows)):
        np.testing.assert_allclose(stage.scores[number], scanned(where, asked[number], True, None), rtol=1e-5, atol=1e-5)


def test_a_ranking_that_is_given_up_in_its_pass_does_not_take_the_next_one_with_it():
    stage, rows, asked = Stage(), table(1), queries(2)

    def give_up() -> None:
        stage.hold()
        raise TimeoutError("nobody waits any more")

    stage.want(0, rows, asked[0], True, give_up)
    assert stage.reached.wait(PATIENCE)
    stage.want(1, rows, asked[1])
    stage.until_waiting(1)
    stage.finish()
    assert isinstance(stage.failures[0], TimeoutError)
    assert list(stage.scores) == [1]
    assert stage.slots.acquire(blocking=False), "every slot came back"


def test_one_that_gave_up_while_it_waited_is_not_in_the_pass():
    stage, rows, asked = Stage(), table(1), queries(4)

    def give_up() -> None:
        raise TimeoutError("nobody waits any more")

    stage.want(0, rows, asked[0], True, stage.hold)
    assert stage.reached.wait(PATIENCE)
    for number, between in ((1, give_up), (2, None), (3, None)):
        stage.want(number, rows, asked[number], True, between)
        stage.until_waiting(number)
    stage.finish()
    assert stage.passes == [1, 2]
    assert isinstance(stage.failures[1], TimeoutError)
    np.testing.assert_allclose(stage.scores[3], scanned(rows, asked[3], True, None), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("patient", [False, True])
def test_a_shared_pass_ends_between_two_blocks_once_nobody_waits_for_it(patient):
    stage, rows, asked = Stage(), table(1), queries(3)

    def give_up_in_the_pass():
        # The first answer is for when the pass is put together.
        answers = iter([False])

        def between() -> None:
            if next(answers, True):
                raise TimeoutError("nobody waits any more")

        return between

    stage.want(0, rows, asked[0], True, stage.hold)
    assert stage.reached.wait(PATIENCE)
    stage.want(1, rows, asked[1], True, give_up_in_the_pass())
    stage.until_waiting(1)
    stage.want(2, rows, asked[2], True, None if patient else give_up_in_the_pass())
    stage.until_waiting(2)
    stage.finish()
    assert isinstance(stage.failures[1], TimeoutError)
    assert (2 in stage.scores) is patient
    assert stage.passes == ([1, 2] if patient else [1])


def test_scores_stay_as_they_are_until_their_ranking_ends_and_then_their_memory_is_used_again():
    stage, rows, asked = Stage(), table(1), queries(2)
    with stage.slots, ScanTurn(stage.scan) as first:
        scores = first(rows, asked[0], True, None)
        with ScanTurn(stage.scan) as second:
            other = second(rows, asked[1], True, None)
        assert not np.shares_memory(scores, other)
        np.testing.assert_array_equal(scores, scanned(rows, asked[0], True, None))
        with ScanTurn(stage.scan) as third:
            assert np.shares_memory(third(rows, asked[1], True, None), other)


def test_no_more_arrays_are_kept_than_told_and_none_that_is_too_small():
    arrays = ScoreArrays(most=2)
    lent = [arrays.lend(100) for _ in range(3)]
    for array in lent:
        arrays.take_back(array)
    assert len(arrays.lend(len(lent[0]) + 1)) > len(lent[0])
    assert arrays.lend(100) is lent[0]
    assert all(arrays.lend(100) is not array for array in lent)


def test_a_small_table_is_never_shared():
    stage = Stage()
    stage.scan = JointScan(stage.slots, COUNT + 1, 8, stage.passes.append)
    stage.want(0, table(1), queries(1)[0])
    stage.finish()
    assert stage.passes == []
    assert len(stage.scores[0]) == COUNT


def test_a_server_ranks_alike_with_and_without(catalogue):
    """Many clients at once on a server that shares every pass; the ids of each ranking are those of one alone."""
    sessions = [[f"item-{number}", f"item-{number + 1}"] for number in range(1, 25)]
    plain = free_port_settings(joint_scan_items=0)
    shared = free_port_settings(joint_scan_items=1)
    with RankingServer(catalogue.bundle, catalogue.store, plain) as server, RankingClient(server.address) as client:
        alone = [[item.item_id for item in client.rank(session, timeout=PATIENCE).items] for session in sessions]
    with RankingServer(catalogue.bundle, catalogue.store, shared) as server, RankingClient(server.address) as client:
        together: dict[int, list[str]] = {}

        def ask(number: int) -> None:
            together[number] = [item.item_id for item in client.rank(sessions[number], timeout=PATIENCE).items]

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(sessions))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        passes = server.registry.get_sample_value("llmgr_ranking_scan_sessions_sum")
    assert [together[number] for number in range(len(sessions))] == alone
    assert passes >= len(sessions)
