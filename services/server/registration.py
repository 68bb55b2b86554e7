"""Adding a service to an asyncio server, with the standard health and reflection services beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, TypeAlias

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

OVERALL = ""
Status: TypeAlias = health_pb2.HealthCheckResponse.ServingStatus


def add_service(
    server: grpc.aio.Server, full_name: str, methods: dict[str, grpc.RpcMethodHandler[Any, Any]]
) -> AsyncReflectionServicer:
    """Add a service (full name as in the .proto file) to an asyncio server, and reflection that lists it, which is returned.

    There a stream holds no thread; threaded servers bound it (see bounded_reflection.py).
    """
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(full_name, methods),))
    servicer = AsyncReflectionServicer((full_name, health.SERVICE_NAME, reflection.SERVICE_NAME))
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    return servicer


class AsyncHealth:
    """Health of an asyncio server: unknown until told."""

    def __init__(self, server: grpc.aio.Server, full_name: str) -> None:
        self._names = (OVERALL, full_name)
        self._servicer = AsyncHealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    def set_serving(self, serving: bool) -> None:
        for name in self._names:
            self._servicer.set(name, _status(serving))

    def end_watches(self) -> None:
        """Let go of those who watch, once the server takes no new calls: their streams would hold it for all of its drain."""
        self._servicer.end_watches()


class AsyncHealthServicer(health_pb2_grpc.HealthServicer):
    """The standard service, whose watches can be ended; each is told first how things stand.

    gRPC's own ends a check of an unknown service by ``context.abort``, which this project does not use (see async_methods.py).
    """

    def __init__(self) -> None:
        self._statuses: dict[str, Status] = {}
        self._changed = asyncio.Event()
        self._ending = False

    async def Check(self, request: Any, context: Any) -> health_pb2.HealthCheckResponse:  # noqa: N802
        status = self._statuses.get(request.service)
        if status is None:
            context.set_code(grpc.StatusCode.NOT_FOUND)
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[health_pb2.HealthCheckResponse]:  # noqa: N802
        told = None
        while True:
            status = self._statuses.get(request.service, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
            if status != told:
                told = status
                yield health_pb2.HealthCheckResponse(status=status)
            elif self._ending:
                return
            else:
                await self._changed.wait()

    def set(self, service: str, status: Status) -> None:
        self._statuses[service] = status
        self._wake()

    def end_watches(self) -> None:
        self._ending = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class AsyncReflectionServicer(reflection.aio.ReflectionServicer):
    """The standard one, whose streams can be ended."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__(names)
        self._stopping = asyncio.Event()

    def end_streams(self) -> None:
        """Let go of those who keep quiet, once the server takes no new calls: they would hold it for all of its drain."""
        self._stopping.set()

    async def ServerReflectionInfo(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:  # noqa: N802
        answers = super().ServerReflectionInfo(requests, context)
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            while True:
                answer = asyncio.ensure_future(anext(answers, None))
                await asyncio.wait({answer, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if not answer.done():
                    answer.cancel()
                    context.set_code(grpc.StatusCode.UNAVAILABLE)
                    context.set_details("the server is stopping; ask another, or again")
                    return
                if answer.result() is None:
                    return
                yield answer.result()
        finally:
            stopping.cancel()


def _status(serving: bool) -> Status:
    return health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
