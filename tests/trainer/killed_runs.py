"""Commands in real processes that are killed (SIGKILL) at a chosen moment, and what each of them did until then.

What a killed process leaves is on the disk. The moments worth telling apart are thus those before each change of the disk,
those in the middle of writing a file, and the steps of training in between. ``python killed_runs.py`` has everything imported
and forks one process a run, which counts its own moments and kills itself at the one that was asked for.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"}
MINUTE = 60.0


@dataclass(frozen=True)
class Outcome:
    """What became of one process.

    Attributes:
        killed: it did not live to its end.
        moments: what it was about to do at each of its moments, in order.
        steps: training steps it began, in order.
    """

    killed: bool
    moments: list[str]
    steps: list[str]


class Processes:
    """Starts the processes; one at a time."""

    def __enter__(self) -> Self:
        self._number = 0
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()

    def run(self, arguments: list[str], kill_at: int | str | None = None) -> Outcome:
        """Run ``llmgr ARGUMENTS``; kill it at a moment, if it comes to it.

        Args:
            kill_at: number of the moment, from 0; or part of its name, the first moment with that name.

        Raises:
            RuntimeError: it failed by itself; the message holds what it printed.
        """
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._number += 1
        print(json.dumps([self._number, arguments, kill_at]), file=self._server.stdin, flush=True)
        answered = 0
        # A test that ran out of time left its answer behind.
        while answered != self._number:
            answered, status, lines, printed = json.loads(self._server.stdout.readline())
        if status not in (0, -signal.SIGKILL):
            raise RuntimeError(f"llmgr {' '.join(arguments)} ended with {status}:\n{printed}")
        moments = [line.removeprefix("moment ") for line in lines if line.startswith("moment ")]
        return Outcome(status != 0, moments, [line for line in lines if line.startswith("step ")])


def serve() -> None:
    """Read runs from standard input, one a line, until it ends; write one line about each."""
    import optuna  # noqa: F401
    import peft  # noqa: F401
    import torch
    import transformers  # noqa: F401

    import services.commands.embed  # noqa: F401
    import trainer.distil.finishing
    import trainer.sweep.sweep
    import trainer.tune.teacher
    import trainer.tune.two_stages  # noqa: F401
    from llmgr_core.command_line.main import llmgr

    torch.set_num_threads(1)
    for line in sys.stdin:
        number, arguments, kill_at = json.loads(line)
        told_read, told_write = os.pipe()
        printed = os.memfd_create("printed")
        child = os.fork()
        if child == 0:
            os.close(told_read)
            os.dup2(printed, 1)
            os.dup2(printed, 2)
            sys.stdin = open(os.devnull)  # noqa: SIM115
            _watch(Recorder(told_write, kill_at), arguments)
            status = 1
            try:
                llmgr(arguments, standalone_mode=False)
                status = 0
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            os._exit(status)
        os.close(told_write)
        with os.fdopen(told_read) as stream:
            lines = stream.read().splitlines()
        _, status = os.waitpid(child, 0)
        said = os.pread(printed, 1 << 20, 0).decode(errors="replace")
        os.close(printed)
        print(json.dumps([number, os.waitstatus_to_exitcode(status), lines, said[-4000:]]), flush=True)


class Recorder:
    """Tells the parent of each moment and step as it comes, and ends the process at one of them."""

    def __init__(self, told: int, kill_at: int | str | None) -> None:
        self._told, self._kill_at, self._number = told, kill_at, 0

    def moment(self, label: str, last_words: Callable[[], None] = lambda: None) -> None:
        self._tell(f"moment {label}")
        now = self._kill_at in label if isinstance(self._kill_at, str) else self._kill_at == self._number
        self._number += 1
        if now:
            self._kill_at = None
            last_words()
            os.kill(os.getpid(), signal.SIGKILL)

    def step(self, label: str) -> None:
        self.moment(f"step {label}")
        self._tell(f"step {label}")

    def _tell(self, line: str) -> None:
        os.write(self._told, line.replace("\n", " ").encode() + b"\n")


def _watch(recorder: Recorder, arguments: list[str]) -> None:
    root = str(Path(arguments[arguments.index("--run") + 1]).resolve())

    def inside(path: object) -> bool:
        # Links stay as they are: what a run was given by a link is not its own.
        return isinstance(path, str | bytes | os.PathLike) and str(Path(os.fsdecode(path)).absolute()).startswith(root)

    def hook(event: str, values: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = values
            if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and inside(path):
                recorder.moment(f"open {_short(path)}")
        elif event in CHANGES and inside(values[0]):
            recorder.moment(f"{event.removeprefix('os.')} {_short(values[0])}")

    _watch_safetensors(recorder, inside)
    _watch_steps(recorder)
    sys.addaudithook(hook)


def _short(path: Any) -> str:
    return "/".join(Path(os.fsdecode(path)).parts[-2:])


def _watch_safetensors(recorder: Recorder, inside: Callable[[object], bool]) -> None:
    """The library writes into a file ``.tmpXXXXXX`` and renames it, without Python hearing of it."""
    import safetensors
    import safetensors.numpy
    import safetensors.torch

    write = safetensors.serialize_file

    def watched(tensors: Any, filename: Any, metadata: Any = None) -> None:
        if not inside(filename):
            return write(tensors, filename, metadata=metadata)
        path = Path(filename)

        def torn() -> None:
            write(tensors, path.with_name(".tmpTorn00"), metadata=metadata)
            os.truncate(path.with_name(".tmpTorn00"), path.with_name(".tmpTorn00").stat().st_size // 2)

        recorder.moment(f"begin {_short(path)}")
        recorder.moment(f"torn {_short(path)}", torn)
        write(tensors, filename, metadata=metadata)
        return recorder.moment(f"written {_short(path)}")

    safetensors.torch.serialize_file = safetensors.numpy.serialize_file = watched  # type: ignore[attr-defined]


def _watch_steps(recorder: Recorder) -> None:
    """Each step is a moment, and takes a minute of the clock that [pretrain] and [distil] go by for their checkpoints."""
    from trainer.catalogue_training import run
    from trainer.tune import training_loop

    class Clock:
        now = 0.0

        @classmethod
        def monotonic(cls) -> float:
            return cls.now

    step = run.CatalogueTraining._step

    def counted(self: Any, *arguments: Any) -> Any:
        recorder.step(f"{self.checkpoints.parent.name} {self.steps}")
        Clock.now += MINUTE
        return step(self, *arguments)

    seed = training_loop.step_seed

    def seeded(base: int, stage: int, number: int, rank: int) -> int:
        recorder.step(f"stage {stage} {number}")
        return seed(base, stage, number, rank)

    run.CatalogueTraining._step = counted  # type: ignore[method-assign]
    run.time = Clock  # type: ignore[assignment,attr-defined]
    training_loop.step_seed = seeded  # type: ignore[attr-defined]


if __name__ == "__main__":
    serve()
