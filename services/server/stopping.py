"""Stopping on SIGTERM or SIGINT: say NOT_SERVING, let calls in flight finish, then leave."""

from __future__ import annotations

import asyncio
import os
import signal
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def wait_for_stop_signal() -> None:
    """Block the main thread until the process is asked to stop; a second signal then acts as usual."""
    # A pipe, because a handler must not take a lock that the interrupted thread may hold.
    reading, writing = os.pipe()

    def note(number: int, frame: FrameType | None) -> None:
        os.write(writing, b"!")

    before = {number: signal.signal(number, note) for number in STOP_SIGNALS}
    try:
        os.read(reading, 1)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)


async def stop_signal() -> None:
    """As wait_for_stop_signal, on the running event loop."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, asked.set)
    try:
        await asked.wait()
    finally:
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)
