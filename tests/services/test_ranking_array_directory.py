"""Equal arrays stand in memory once, whichever process made them, and go when the last one that used them goes."""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from patience import PATIENCE

from llmgr_core.ranker.item_rows import BLOCK_ROWS, ItemRows
from services.ranking.array_directory import ARRAYS_NAME, LOCK_NAME, SharedArrays, SharedDirectory


@pytest.fixture
def directory(tmp_path):
    shared = SharedDirectory(tmp_path)
    yield shared
    shared.close()


def numbers(seed: int, shape: tuple[int, ...] = (BLOCK_ROWS, 8)) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def files(directory: SharedDirectory) -> list[Path]:
    return list((directory.path / ARRAYS_NAME).iterdir())


def hold(path: Path, seed: int, ready, go_on) -> None:
    held = SharedArrays(path).share(numbers(seed))
    ready.send((held.flags.writeable, float(held.sum())))
    go_on.recv()


def test_equal_arrays_of_two_processes_are_one_file(directory):
    spawn = multiprocessing.get_context("spawn")
    ready, theirs = spawn.Pipe()
    their_end, _go_on = spawn.Pipe()
    process = spawn.Process(target=hold, args=(directory.path, 1, theirs, their_end))
    process.start()
    writeable, total = ready.recv()
    assert not writeable
    arrays = SharedArrays(directory.path)
    mine = arrays.share(numbers(1))
    assert mine.tobytes() == numbers(1).tobytes()
    assert total == float(mine.sum())
    assert len(files(directory)) == 1
    # The other process is killed; what I use stays, what only it used goes.
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    directory.forget(process.pid)
    assert len(files(directory)) == 1
    assert mine.tobytes() == numbers(1).tobytes()
    del mine
    gc.collect()
    assert files(directory) == []


def test_an_array_can_be_had_again_after_it_was_let_go(directory):
    arrays = SharedArrays(directory.path)
    for _ in range(3):
        shared = arrays.share(numbers(2))
        assert (shared == numbers(2)).all()
        assert len(files(directory)) == 1
        del shared
        gc.collect()
        assert files(directory) == []


def test_shape_and_type_are_part_of_the_content(directory):
    arrays = SharedArrays(directory.path)
    kept = [
        arrays.share(numbers(3, (64, 128))),
        arrays.share(numbers(3, (128, 64))),
        arrays.share(numbers(3, (64, 128)).view(np.int32)),
    ]
    assert [one.shape for one in kept] == [(64, 128), (128, 64), (64, 128)]
    assert len(files(directory)) == 3


def test_where_nothing_can_be_written_arrays_stay_private(directory):
    arrays = SharedArrays(directory.path)
    shutil.rmtree(directory.path)
    own = numbers(4)
    assert arrays.share(own) is own


def test_what_a_killed_server_left_is_removed_by_the_next_and_a_living_ones_is_not(tmp_path):
    living = SharedDirectory(tmp_path)
    killed = SharedDirectory(tmp_path)
    killed._lock.close()
    other = tmp_path / "somebody-elses"
    other.mkdir()
    newest = SharedDirectory(tmp_path)
    assert not killed.path.exists()
    assert living.path.exists()
    assert newest.path.exists()
    assert other.exists()
    living.close()
    newest.close()


def test_rows_are_the_same_wherever_they_stand_and_change_as_before(directory):
    arrays = SharedArrays(directory.path)
    rows = ItemRows.from_array(numbers(5, (2 * BLOCK_ROWS + 100, 8)))
    shared = rows.shared(arrays.share)
    every = np.arange(rows.count)
    assert shared.vectors(every).tobytes() == rows.vectors(every).tobytes()
    assert [block[0].flags.writeable for block in shared.blocks] == [False, False, True]
    assert shared.shared(arrays.share).blocks[0] is shared.blocks[0]
    row = np.ones(8, dtype=np.float32)
    edited = shared.replaced({3: row, BLOCK_ROWS: row}).extended(row[None])
    assert edited.vectors(np.array([3, BLOCK_ROWS, rows.count])) == pytest.approx(np.ones((3, 8)))
    assert shared.vectors(every).tobytes() == rows.vectors(every).tobytes()
    again = edited.shared(arrays.share)
    assert not again.blocks[0][0].flags.writeable
    assert again.vectors(every).tobytes() == edited.vectors(every).tobytes()


def test_a_pipe_that_somebody_put_there_is_not_waited_for(tmp_path):
    """Everybody may write to /dev/shm."""
    left = tmp_path / "llmgr-ranking-x"
    left.mkdir()
    os.mkfifo(left / LOCK_NAME)
    made = []
    starting = threading.Thread(target=lambda: made.append(SharedDirectory(tmp_path)), daemon=True)
    starting.start()
    starting.join(PATIENCE)
    assert made
    made[0].close()
