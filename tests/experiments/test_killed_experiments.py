"""An experiment that is killed while one of its steps trains: alone, or with the step."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from killed_process import kill_when_named
from small_runs import SMALL, invoke

from llmgr_core.artefacts import Manifest
from trainer.catalogue_training.checkpoint import CHECKPOINT_NAME

PROGRAM = "import sys; from llmgr_core.command_line.main import main; main()"
EPOCHS = 4
SETTINGS = [*SMALL, "--set", f"distil.epochs={EPOCHS}"]
ROW = 'title = "t"\nabout = "a"\n[[row]]\nname = "a"\nlabel = "a"\nvariant = "id-only"\n'

# In the step alone: at its checkpoint it kills who started it, and goes on when somebody opens the pipe's other end.
ORPHANED = """
import os, signal

rename, left = os.replace, [int(os.environ["ORPHANED_AT"])]

def rename_and_lose_the_parent(source, target, **more):
    rename(source, target, **more)
    if os.fspath(target).endswith(os.environ["CHECKPOINT"]):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getppid(), signal.SIGKILL)
            os.close(os.open(os.environ["GO_ON"], os.O_RDONLY))

os.replace = rename_and_lose_the_parent
"""


@pytest.fixture(scope="module")
def whole(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ranker as it comes when nobody is killed."""
    run = Path(shutil.copytree(small_run, tmp_path_factory.mktemp("whole") / "run"))
    invoke("distil", "--variant", "id-only", "--run", str(run), "--json", *SETTINGS)
    return run / "ranker-id-only"


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Path:
    root = tmp_path / "run"
    root.mkdir()
    for name in ("dataset", "backbone"):
        (root / name).symlink_to(small_run / name)
    return root


def arguments(run: Path) -> list[str]:
    row = run.with_name("row.toml")
    row.write_text(ROW)
    return ["experiment", str(row), "--run", str(run), "--json", *SETTINGS]


def orphan_a_step(run: Path, go_on: Path, checkpoint: int) -> None:
    """Start an experiment whose step kills it at a checkpoint; on return it is dead, and its step waits to go on."""
    os.mkfifo(go_on)
    hook = run.with_name("hook")
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(ORPHANED)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(hook), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "ORPHANED_AT": str(checkpoint),
        "CHECKPOINT": f"checkpoints/{CHECKPOINT_NAME}",
        "GO_ON": str(go_on),
    }
    with run.with_name("first.log").open("w") as log:
        first = subprocess.run([sys.executable, "-c", PROGRAM, *arguments(run)], env=environment, stderr=log, check=False)
    assert first.returncode == -signal.SIGKILL, run.with_name("first.log").read_text()[-2000:]


def repeat(run: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments(run)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def check(run: Path, whole: Path) -> None:
    """One artefact, every byte of it as if nobody had been killed, each epoch once in its log."""
    (found,) = (run / "experiments" / "steps").glob("*/ranker-id-only")
    assert (found / "log.jsonl").read_text() == (whole / "log.jsonl").read_text()
    assert Manifest.read(found).files == Manifest.read(whole).files
    assert Manifest.read(found).digest == Manifest.read(whole).digest
    assert not list(found.parent.glob("*.partial"))


def orphan_and_repeat(run: Path, whole: Path, checkpoint: int) -> None:
    go_on = run.with_name("go-on")
    orphan_a_step(run, go_on, checkpoint)
    told: list[str] = []
    with repeat(run) as second:
        assert second.stderr is not None
        for line in second.stderr:
            told.append(json.loads(line)["event"] if line.startswith("{") else line)
            if told[-1] in ("waiting", "step"):
                break
        # Whatever the second one does, the step of the first goes on beside it.
        go_on.open("w").close()
        told += [json.loads(line)["event"] if line.startswith("{") else line for line in second.stderr]
    assert second.returncode == 0, told
    assert told[:1] == ["waiting"]
    assert "step" not in told, "the step was there when the wait was over"
    check(run, whole)


def test_the_step_of_a_killed_experiment_ends_alone_and_the_next_experiment_waits_for_it(run: Path, whole: Path) -> None:
    orphan_and_repeat(run, whole, checkpoint=2)


def test_an_experiment_killed_with_its_step_goes_on_from_the_checkpoint(run: Path, whole: Path) -> None:
    kill_when_named(PROGRAM, arguments(run), f"checkpoints/{CHECKPOINT_NAME}", run.with_name("hook"), count=2)
    with repeat(run) as second:
        assert second.stderr is not None
        told = [json.loads(line) for line in second.stderr if line.startswith("{")]
    assert second.returncode == 0, told
    events = [line["event"] for line in told]
    assert "step" in events
    assert "waiting" not in events
    check(run, whole)


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint", range(1, EPOCHS + 1))
def test_a_step_is_orphaned_at_any_of_its_checkpoints(run: Path, whole: Path, checkpoint: int) -> None:
    orphan_and_repeat(run, whole, checkpoint)


@pytest.mark.slow
def test_an_experiment_killed_with_its_step_at_every_checkpoint_in_turn(run: Path, whole: Path) -> None:
    for number in range(EPOCHS):
        kill_when_named(PROGRAM, arguments(run), f"checkpoints/{CHECKPOINT_NAME}", run.with_name(f"hook-{number}"))
    assert repeat(run).communicate()[0] is None
    check(run, whole)
