"""Making what a row stands on, each artefact by the step that any user would run."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llmgr_core.errors import ArtefactError, LlmgrError
from llmgr_core.progress import Reporter
from llmgr_core.run_directory import RunDirectory
from trainer.experiments.links import SHARED_CACHE, STORE_MARK, Link, costs, program


class StepFailedError(LlmgrError):
    """A step that a row needs ended with an error; it has said which."""


def make(link: Link, run: RunDirectory, reporter: Reporter) -> None:
    """Make what is missing, needs first. A step that was cut off goes on from its own checkpoint.

    Raises:
        StepFailedError: a step failed.
        ArtefactError: something of the run itself is not there.
    """
    for one in link.pending():
        if one.own:
            raise ArtefactError(f"{run.root} holds no {one.kind}", "run the step that makes it first")
        one.directory.mkdir(parents=True, exist_ok=True)
        with _held(one.directory, reporter) as lock:
            if not one.finished():
                _run(one, run, reporter, lock)


def _run(link: Link, run: RunDirectory, reporter: Reporter, lock: int) -> None:
    place_needs(link)
    if link.kind == "ranker":
        (run.root / SHARED_CACHE).mkdir(exist_ok=True)
        _place(link.directory / SHARED_CACHE, run.root / SHARED_CACHE)
    reporter.event("step", command=" ".join(("llmgr", *link.command)))
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    try:
        # What it prints is for people who run it alone; how it goes stands on standard error, which is ours.
        # It holds the lock too: should this process be killed, the step ends alone, and whoever comes next waits for that.
        command = [*program(), *link.command]
        status = subprocess.run(command, stdout=subprocess.DEVNULL, pass_fds=(lock,), check=False).returncode
    finally:
        _add_cost(link, resource.getrusage(resource.RUSAGE_CHILDREN), before, time.monotonic() - started)
    if status != 0:
        raise StepFailedError(
            f"`llmgr {link.command[0]}` ended with status {status} in {link.directory}",
            f"see above; the command was: llmgr {' '.join(link.command)}",
        )
    if link.kind == "store":
        (link.path / STORE_MARK).write_text("{}\n", encoding="utf-8")


def place_needs(link: Link) -> None:
    """Put what a step reads where the step looks for it."""
    directory = RunDirectory(link.directory)
    for need in link.needs:
        # Of rankers, another one reads its teacher only.
        _place(directory.teacher_ranker if need.kind == "ranker" else directory.root / need.kind, need.path)


def _add_cost(link: Link, after: resource.struct_rusage, before: resource.struct_rusage, seconds: float) -> None:
    earlier = costs(link)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    total = {
        "cpu_seconds": round(earlier.get("cpu_seconds", 0.0) + cpu, 2),
        "seconds": round(earlier.get("seconds", 0.0) + seconds, 2),
    }
    (link.directory / "cost.json").write_text(json.dumps(total) + "\n", encoding="utf-8")


def _place(link: Path, target: Path) -> None:
    """A symbolic link to where an artefact really stands."""
    wanted = target.resolve()
    if link.is_symlink():
        if link.resolve() == wanted:
            return
        link.unlink()
    link.symlink_to(wanted)


@contextmanager
def _held(directory: Path, reporter: Reporter) -> Iterator[int]:
    """One process at a time: another experiment that needs the same artefact waits, and then finds it.

    Yields:
        The locked descriptor. The lock lives as long as any process that has it.
    """
    descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            reporter.event("waiting", place=str(directory), why="another process works there")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)
