"""A channel to one service, for one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from llmgr_core.errors import LlmgrError
from services.client.calls import await_with_retries
from services.client.connection import ServiceConnection

Reply = TypeVar("Reply")

# Longer than any call under way on a channel that is left for another.
LET_GO_SECONDS = 600.0


class AsyncConnection(ServiceConnection):
    """Make and use it on one running event loop; an asynchronous context manager that closes itself. See ServiceConnection.

    Raises:
        LlmgrError: no event loop is running.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise LlmgrError(
                f"{type(self).__name__} is made outside of an event loop",
                "make it inside a coroutine, or use the client without Async in its name",
            ) from None
        self._leaving: set[asyncio.Task[None]] = set()
        super().__init__(*args, **options)

    async def close(self) -> None:
        """Cancel the calls under way and hang up."""
        self._closed = True
        await self.channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(self, method: Callable[..., Awaitable[Reply]], request: object, timeout: float | None) -> Reply:
        seconds = self.timeout if timeout is None else timeout
        return await await_with_retries(method, request, seconds, self.retry, self.metadata, self.budget)

    def _new_channel(
        self, credentials: grpc.ChannelCredentials | None, options: list[tuple[str, str | int]]
    ) -> grpc.aio.Channel:
        if credentials is None:
            return grpc.aio.insecure_channel(self._target, options)
        return grpc.aio.secure_channel(self._target, credentials, options)

    def _let_go(self, channel: grpc.aio.Channel) -> None:
        task = asyncio.get_running_loop().create_task(channel.close(LET_GO_SECONDS))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
