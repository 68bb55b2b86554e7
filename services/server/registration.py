"""Adding a service to a server, with the standard health and reflection services beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

OVERALL = ""


def add_service(server: grpc.aio.Server, full_name: str, methods: dict[str, grpc.RpcMethodHandler[Any, Any]]) -> None:
    """Add a service (full name as in the .proto file) to an asyncio server, and reflection that lists it.

    There a stream holds no thread; threaded servers bound it (see bounded_reflection.py).
    """
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(full_name, methods),))
    names = (full_name, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)


class SyncHealth:
    """Health of a threaded server: NOT_SERVING until told otherwise."""

    def __init__(self, server: grpc.Server, full_name: str) -> None:
        self._names = (OVERALL, full_name)
        self._servicer = SyncHealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, _LookedUp(server))
        self.set_serving(False)

    def set_serving(self, serving: bool) -> None:
        for name in self._names:
            self._servicer.set(name, _status(serving))

    def end_watches(self) -> None:
        """Let go of those who watch, once the server takes no new calls: their streams would hold it for all of its drain."""
        self._servicer.end_watches()


class _LookedUp:
    """A threaded server whose methods are all looked up by their handlers, for the generated code to add a service to.

    It would make them known to gRPC by name too; those calls no handler is asked about, so that nobody could count them.
    """

    def __init__(self, server: grpc.Server) -> None:
        self.add_generic_rpc_handlers = server.add_generic_rpc_handlers

    def add_registered_method_handlers(self, service: str, methods: object) -> None:
        """Not needed."""


class AsyncHealth:
    """Health of an asyncio server: unknown until told."""

    def __init__(self, server: grpc.aio.Server, full_name: str) -> None:
        self._names = (OVERALL, full_name)
        self._servicer = AsyncHealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def set_serving(self, serving: bool) -> None:
        for name in self._names:
            await self._servicer.set(name, _status(serving))

    def end_watches(self) -> None:
        """See SyncHealth.end_watches."""
        self._servicer.stopping.set()


class SyncHealthServicer(health.HealthServicer):
    """The standard one, whose watches can be ended."""

    def __init__(self) -> None:
        super().__init__()
        self._watches: dict[int, Callable[[None], None]] = {}

    def Watch(self, request: Any, context: Any, send_response_callback: Any = None) -> Any:  # noqa: N802
        watch = id(context)
        self._watches[watch] = send_response_callback
        context.add_callback(lambda: self._watches.pop(watch, None))
        return super().Watch(request, context, send_response_callback)

    def end_watches(self) -> None:
        for end in list(self._watches.values()):
            # None is how a method that answers by callback ends its stream.
            end(None)


class AsyncHealthServicer(health.aio.HealthServicer):
    """The standard one, whose watches can be ended."""

    def __init__(self) -> None:
        super().__init__()
        self.stopping = asyncio.Event()

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802
        tasks = {asyncio.ensure_future(super().Watch(request, context)), asyncio.ensure_future(self.stopping.wait())}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()


def _status(serving: bool) -> health_pb2.HealthCheckResponse.ServingStatus:
    return health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
