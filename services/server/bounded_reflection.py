"""Server reflection of a threaded server.

A stream of it lasts as long as its client likes, and holds a thread meanwhile. So a few have threads of their own, and the next
one is refused at once instead of waiting for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection, reflection_pb2
from prometheus_client import Counter

from services.server.admission import BoundedMethod, BoundedMethods, BoundedPool
from services.server.errors import overloaded
from services.server.observation import CallObserver
from services.server.refusal import refusing_method

STREAMS = 4
METHOD = "ServerReflectionInfo"
RETRY_AFTER_S = 1.0


def bounded_reflection(server: grpc.Server, full_name: str, observer: CallObserver, shed: Counter | None = None) -> BoundedPool:
    """Let a server list its service, health and reflection, for at most ``STREAMS`` clients at a time.

    Args:
        server: not started yet.
        full_name: of the service, as in the .proto file.
        observer: counts and logs the streams that are refused.
        shed: counts them too.

    Returns:
        the threads, for the server to shut down.
    """
    names = (full_name, health.SERVICE_NAME, reflection.SERVICE_NAME)
    servicer = reflection.ReflectionServicer(names)

    def reflect(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        answers: Iterator[Any] = servicer.ServerReflectionInfo(requests, context)
        return answers

    handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
        reflect,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    pool = BoundedPool(STREAMS, STREAMS, "reflection")
    refusal = refusing_method(METHOD, overloaded("too many reflection streams are open", RETRY_AFTER_S), observer, shed)
    server.add_generic_rpc_handlers((BoundedMethods(reflection.SERVICE_NAME, {METHOD: BoundedMethod(handler, pool, refusal)}),))
    return pool
