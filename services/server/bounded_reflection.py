"""Server reflection of a threaded server.

A stream of it lasts as long as its client likes, and holds a thread meanwhile. So a few have threads of their own, the next
one is refused at once instead of waiting for them, and a server that stops waits for none of them.
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
from services.server.refusal import refusal_of

STREAMS = 4
METHOD = "ServerReflectionInfo"
RETRY_AFTER_S = 1.0


class BoundedReflection:
    """Lets a server list its service, health and reflection, for at most ``STREAMS`` clients at a time.

    Args:
        server: not started yet.
        full_name: of the service, as in the .proto file.
        observer: counts and logs the streams that are refused.
        shed: counts them too.
    """

    def __init__(self, server: grpc.Server, full_name: str, observer: CallObserver, shed: Counter | None = None) -> None:
        servicer = reflection.ReflectionServicer((full_name, health.SERVICE_NAME, reflection.SERVICE_NAME))
        self._streams: set[grpc.ServicerContext] = set()
        self._ending = False
        self._pool = BoundedPool(STREAMS, STREAMS, "reflection")

        # gRPC notes the threads on the function, which a bound method does not let it.
        def reflect(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            self._streams.add(context)
            try:
                # Asked only now, so that a stream which begins while the others are ended is not forgotten.
                if not self._ending:
                    yield from servicer.ServerReflectionInfo(requests, context)
            finally:
                self._streams.discard(context)

        handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
            reflect,
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
        refusal = refusal_of(METHOD, overloaded("too many reflection streams are open", RETRY_AFTER_S), observer, shed)
        method = BoundedMethod(handler, self._pool, refusal)
        server.add_generic_rpc_handlers((BoundedMethods(reflection.SERVICE_NAME, {METHOD: method}),))

    def end_streams(self) -> None:
        """Hang up, once the server takes no new calls: who keeps quiet would hold it for all of its drain."""
        self._ending = True
        for context in list(self._streams):
            context.cancel()

    def close(self) -> None:
        """Let go of the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)
