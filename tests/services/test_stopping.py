"""A process that is told to stop drains, however early it is told."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, os, signal
from services.server.stopping import StopSignal

async def on_a_loop(stop):
    await stop.asked()

with StopSignal() as stop:
    os.kill(os.getpid(), signal.{name})  # somebody was told that it serves
    {wait}
    print("drained", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    print("a second signal did not act", flush=True)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("wait", ["stop.wait()", "asyncio.run(on_a_loop(stop))"], ids=["threads", "event loop"])
def test_a_signal_that_comes_before_it_is_waited_for_is_not_lost_and_a_second_one_ends_the_process(name, wait):
    program = PROGRAM.format(name=name, wait=wait)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-15, "drained\n"), done.stderr
