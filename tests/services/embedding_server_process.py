"""An embedding server as a process, to be signalled and killed."""

import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from patience import PATIENCE

from services.client import EmbeddingClient
from services.client.calls import RetryPolicy


def log_of(store):
    """Where the servers on a store write their log."""
    return Path(f"{store}.log")


@contextmanager
def server_process(store, *overrides):
    """A server in a process of its own; yields the process, a client, and the port of its metrics page."""
    program = Path(__file__).with_name("embedding_process.py")
    command = [sys.executable, str(program), str(store), *overrides]
    # A file, because nobody reads meanwhile: a full pipe would hold the server.
    with log_of(store).open("ab") as log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process:
        try:
            ready = json.loads(process.stdout.readline())
            with EmbeddingClient(ready["address"], timeout=PATIENCE, retry=RetryPolicy(attempts=1)) as client:
                yield process, client, ready["metrics_port"]
        finally:
            process.kill()
