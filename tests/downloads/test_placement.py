"""A fetched directory is whole or not there; fetching it again costs nothing."""

from __future__ import annotations

import errno
import threading
import time
from pathlib import Path

import pytest

from llmgr_core.downloads.placement import is_placed, place_directory
from llmgr_core.errors import InputError

SOURCE = {"wheel": "a", "layout": 1}


def fill(directory: Path) -> None:
    (directory / "data").write_text("content")


def visible(parent: Path) -> list[str]:
    return sorted(path.name for path in parent.iterdir() if not path.name.endswith(".lock"))


def test_it_is_made_once(tmp_path: Path) -> None:
    final = tmp_path / "models" / "one"
    assert place_directory(final, SOURCE, fill)
    assert not place_directory(final, SOURCE, pytest.fail)
    assert place_directory(final, SOURCE, fill, force=True)
    assert visible(final.parent) == ["one"]


@pytest.mark.parametrize("failure", [RuntimeError("broken"), KeyboardInterrupt(), InputError("hash")])
def test_a_failure_leaves_nothing_behind(tmp_path: Path, failure: BaseException) -> None:
    def fail(directory: Path) -> None:
        fill(directory)
        raise failure

    with pytest.raises(type(failure)):
        place_directory(tmp_path / "one", SOURCE, fail)
    assert visible(tmp_path) == []


def test_a_failed_refresh_keeps_the_old_one(tmp_path: Path) -> None:
    place_directory(tmp_path / "one", SOURCE, fill)

    def fail(directory: Path) -> None:
        raise InputError("no network")

    with pytest.raises(InputError):
        place_directory(tmp_path / "one", {"wheel": "newer"}, fail)
    assert is_placed(tmp_path / "one", SOURCE)


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".one.partial").mkdir()
    (tmp_path / ".one.partial" / "half").write_text("x")
    place_directory(tmp_path / "one", SOURCE, fill)
    assert visible(tmp_path) == ["one"]
    assert not (tmp_path / "one" / "half").exists()


@pytest.mark.parametrize("change", ["missing", "shorter", "added", "other source"])
def test_a_changed_directory_is_made_again(tmp_path: Path, change: str) -> None:
    final = tmp_path / "one"
    place_directory(final, SOURCE, fill)
    source = SOURCE
    if change == "missing":
        (final / "data").unlink()
    elif change == "shorter":
        (final / "data").write_text("cont")
    elif change == "added":
        (final / "more").write_text("")
    else:
        source = {**SOURCE, "layout": 2}
    assert not is_placed(final, source)
    assert place_directory(final, source, fill)
    assert is_placed(final, source)


def test_a_full_disk_is_an_error_that_names_the_place(tmp_path: Path) -> None:
    def full(directory: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(InputError, match=r"one cannot be written: No space left"):
        place_directory(tmp_path / "one", SOURCE, full)
    assert visible(tmp_path) == []


def test_of_two_at_a_time_one_fetches_and_both_find_it(tmp_path: Path) -> None:
    made = []

    def slowly(directory: Path) -> None:
        time.sleep(0.2)
        fill(directory)

    threads = [
        threading.Thread(target=lambda: made.append(place_directory(tmp_path / "one", SOURCE, slowly))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False, False, True]
