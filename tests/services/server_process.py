"""Servers as processes of their own, started as a user starts them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bundle_fixture import Catalogue

START_SECONDS = 120.0


class ServerProcess:
    """``llmgr serve SERVICE OPTIONS`` on a free port; a context manager that kills it in the end."""

    def __init__(self, service: str, directory: Path, *options: str, port: int = 0) -> None:
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
        """Wait until it answers."""
        end = time.monotonic() + START_SECONDS
        while not self._ready.exists():
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"the server did not start:\n{self.log()}")
            time.sleep(0.02)
        self.facts = json.loads(self._ready.read_text())
        self.address = self.facts["address"]
        return self

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30.0)

    def __enter__(self) -> Self:
        return self.wait()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.kill()


@dataclass(frozen=True)
class LiveServers:
    """Both servers on one store."""

    catalogue: Catalogue
    embedding: ServerProcess
    ranking: ServerProcess


def places(catalogue: Catalogue) -> tuple[str, ...]:
    """Options that name bundle and store."""
    return ("--bundle", str(catalogue.bundle), "--store", str(catalogue.store))


@contextmanager
def start_both(directory: Path, catalogue: Catalogue) -> Iterator[LiveServers]:
    """Start both servers side by side and wait until they answer."""
    embedding = ServerProcess("embedding", directory, *places(catalogue))
    ranking = ServerProcess("ranking", directory, *places(catalogue))
    with embedding, ranking:
        yield LiveServers(catalogue, embedding, ranking)
