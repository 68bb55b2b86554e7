"""A gRPC server that does nothing: the floor under every served call. Prints its port; ends with its standard input."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

from services.commands.serve import READ_ON_SERVING_THREAD

METHOD = "/benchmark.NoOp/Call"


class NoOp(grpc.GenericRpcHandler):
    """Answers any method with no bytes."""

    def __init__(self) -> None:
        self._handler = grpc.unary_unary_rpc_method_handler(lambda request, context: b"")

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return self._handler


def main() -> None:
    # As `llmgr serve ranking --own-core` has it.
    os.environ.setdefault("GRPC_EXPERIMENTS", READ_ON_SERVING_THREAD)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    server = grpc.server(ThreadPoolExecutor(8), handlers=(NoOp(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(0)


if __name__ == "__main__":
    main()
