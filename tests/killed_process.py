"""A command that kills itself at a given change of the disk: no clock, and nobody who must look in time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

HOOK = """
import os, signal

rename, left = os.replace, [int(os.environ["DIE_AT_COUNT"])]

def rename_or_die(source, target, **more):
    rename(source, target, **more)
    if os.fspath(target).endswith(os.environ["DIE_AT_NAME"]):
        left[0] -= 1
        if left[0] == 0:
            os.killpg(0, signal.SIGKILL)

os.replace = rename_or_die
"""


def kill_when_named(program: str, arguments: list[str], name: str, place: Path, count: int = 1) -> None:
    """Run a Python program until a file has taken its final name; that moment is the last of all its processes.

    Args:
        program: what ``python -c`` gets.
        arguments: of the program.
        name: end of the file's path.
        place: a directory of the test's own.
        count: times that a process has to name such a file.
    """
    place.mkdir(exist_ok=True)
    # Python imports it before anything else, in every process that the program starts.
    (place / "sitecustomize.py").write_text(HOOK, encoding="utf-8")
    paths = [str(place), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(paths),
        "DIE_AT_NAME": name,
        "DIE_AT_COUNT": str(count),
    }
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment,
        start_new_session=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, f"nothing was named {name}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
