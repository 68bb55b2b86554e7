"""A server as a child process: for demonstrations, tests and benchmarks."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from llmgr_core.errors import LlmgrError

START_SECONDS = 300.0
STOP_SECONDS = 60.0


class ServerProcess:
    """``llmgr serve SERVICE OPTIONS`` on loopback; a context manager that waits until it answers, and stops it in the end.

    Args:
        service: "ranking" or "embedding".
        directory: its log and its ready file go here.
        options: further options of the command, for example "--run", "runs/beauty".
        port: 0 takes a free one.

    Attributes:
        process: the child.
        address: host:port once it answers.
        facts: what the server said of itself then.
    """

    def __init__(self, service: str, directory: Path, *options: str, port: int = 0) -> None:
        self._service = service
        self._ready = directory / f"{service}.ready"
        self._ready.unlink(missing_ok=True)
        self._log = directory / f"{service}.log"
        main = "from llmgr_core.command_line.main import main; main()"
        shared = ["--port", str(port), "--metrics-port", "-1", "--ready-file", str(self._ready)]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", main, "serve", service, *shared, *options], stdout=log, stderr=log
            )
        self.address = ""
        self.facts: dict[str, Any] = {}

    def wait(self) -> Self:
        """Wait until it answers.

        Raises:
            LlmgrError: it ended, or did not answer in time; the message holds its log.
        """
        end = time.monotonic() + START_SECONDS
        while not self._ready.exists():
            if self.process.poll() is not None or time.monotonic() > end:
                raise LlmgrError(f"the {self._service} server did not start; its log:\n{self.log()}")
            time.sleep(0.02)
        self.facts = json.loads(self._ready.read_text())
        self.address = self.facts["address"]
        return self

    @property
    def port(self) -> int:
        """Port of ``address``."""
        return int(self.address.rpartition(":")[2])

    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text(errors="replace")

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)

    def __enter__(self) -> Self:
        return self.wait()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
