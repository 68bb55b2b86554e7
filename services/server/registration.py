"""Adding a service to a server, with the standard health and reflection services beside it."""

from __future__ import annotations

from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

OVERALL = ""


def add_service(server: Any, full_name: str, methods: dict[str, grpc.RpcMethodHandler[Any, Any]]) -> None:
    """Add a service (full name as in the .proto file) and reflection that lists it; for threaded and asyncio servers."""
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(full_name, methods),))
    names = (full_name, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)


class SyncHealth:
    """Health of a threaded server: NOT_SERVING until told otherwise."""

    def __init__(self, server: grpc.Server, full_name: str) -> None:
        self._names = (OVERALL, full_name)
        self._servicer = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)
        self.set_serving(False)

    def set_serving(self, serving: bool) -> None:
        for name in self._names:
            self._servicer.set(name, _status(serving))


class AsyncHealth:
    """Health of an asyncio server: unknown until told."""

    def __init__(self, server: grpc.aio.Server, full_name: str) -> None:
        self._names = (OVERALL, full_name)
        self._servicer = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def set_serving(self, serving: bool) -> None:
        for name in self._names:
            await self._servicer.set(name, _status(serving))


def _status(serving: bool) -> health_pb2.HealthCheckResponse.ServingStatus:
    return health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
