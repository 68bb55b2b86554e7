"""Stopping on SIGTERM or SIGINT: say NOT_SERVING, let calls in flight finish, then leave."""

from __future__ import annotations

import asyncio
import os
import signal
from types import FrameType, TracebackType
from typing import Self

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignal:
    """Keeps a signal to stop for whoever waits for it; a context manager of the main thread.

    To be entered before anybody is told that the process serves: who is told may want it to stop at once. From the first signal
    that was waited for on, a second one acts as usual.
    """

    def __enter__(self) -> Self:
        # A pipe, because a handler must not take a lock that the interrupted thread may hold.
        self._reading, self._writing = os.pipe()
        self._before = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}
        return self

    def wait(self) -> None:
        """Block until the process is asked to stop."""
        os.read(self._reading, 1)
        self._let_go()

    async def asked(self) -> None:
        """As ``wait``, on the running event loop."""
        loop, came = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._reading, came.set)
        try:
            await came.wait()
        finally:
            loop.remove_reader(self._reading)
        self._let_go()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._let_go()
        os.close(self._reading)
        os.close(self._writing)

    def _note(self, number: int, frame: FrameType | None) -> None:
        os.write(self._writing, b"!")

    def _let_go(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())
