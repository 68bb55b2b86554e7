"""``llmgr embed`` whose actors wait where a test wants them to: ``python held_readers.py ARGUMENTS``.

Test and actors share the directory HELD_IN. HELD_AFTER forwards are let through, those of all actors together; all further ones
wait, noted as ``waiting-PID``, until the test makes ``go-on``. With HELD_AFTER=load no actor loads its model before that.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from services.embedding import ray_reading
from services.embedding.ray_actor import TextReader

HERE = Path(__file__).parent


class HeldReaders:
    """The test's side.

    Args:
        directory: of the test's own, made here.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()

    def start(self, after: int | str, *arguments: object) -> subprocess.Popen[str]:
        """The command, in a process of its own; ``after`` is HELD_AFTER."""
        path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "HELD_IN": str(self.directory), "HELD_AFTER": str(after), "PYTHONPATH": path}
        command = [sys.executable, __file__, "embed", *map(str, arguments)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def waiting(self) -> list[int]:
        """Process ids of actors that wait, with a file of texts begun."""
        return [int(one.name.rpartition("-")[2]) for one in self.directory.glob("waiting-*")]

    def let_go(self) -> None:
        (self.directory / "go-on").touch()


class HeldModel:
    """A language model that asks before it reads."""

    def __init__(self, model):
        self._model = model

    def embed_texts(self, texts):
        if not let_through():
            wait()
        return self._model.embed_texts(texts)


class HeldReader(TextReader):
    """What Ray runs instead of a TextReader."""

    def __init__(self, *arguments, **options):
        if os.environ["HELD_AFTER"] == "load":
            wait()
        super().__init__(*arguments, **options)
        self._encoder = replace(self._encoder, model=HeldModel(self._encoder.model))


def let_through() -> bool:
    """Whether this is among the first HELD_AFTER forwards."""
    if os.environ["HELD_AFTER"] == "load":
        return True
    for number in range(int(os.environ["HELD_AFTER"])):
        try:
            Path(os.environ["HELD_IN"], f"forward-{number}").touch(exist_ok=False)
        except FileExistsError:
            continue
        return True
    return False


def wait() -> None:
    held = Path(os.environ["HELD_IN"])
    if (held / "go-on").exists():
        return
    (held / f"waiting-{os.getpid()}").touch()
    while not (held / "go-on").exists():
        time.sleep(0.02)


if __name__ == "__main__":
    # Under the name that the actors import it by.
    from held_readers import HeldReader as Importable

    from llmgr_core.command_line.main import main

    ray_reading.TextReader = Importable
    sys.argv[0] = "llmgr"
    main()
