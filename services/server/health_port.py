"""The standard health service on a port of its own.

Under overload gRPC refuses calls before it knows which method they are for, health checks too. A balancer that asks on the port
of the rankings would take a busy server out, and its load would fall upon the others.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc

from services.security.server_security import ServerSecurity
from services.server.binding import bind, server_options
from services.server.message_first import UnsentMessages
from services.server.sync_health import SyncHealth

THREADS = 2
MAX_REQUEST_BYTES = 64 << 10
MAX_UNSENT = 64


class HealthPort:
    """Answers from when it is made until it is closed.

    Args:
        full_name: service that is asked for, beside "".
        host, port: where; 0 takes any free port.
        security: certificate of the server whose health it is. Health asks for no token.
        share_port: other processes of the same server listen there too.

    Raises:
        LlmgrError: the port is in use.
    """

    def __init__(self, full_name: str, host: str, port: int, security: ServerSecurity, *, share_port: bool = False) -> None:
        self._pool = ThreadPoolExecutor(THREADS, "health")
        unsent = UnsentMessages(MAX_UNSENT)
        options = server_options(MAX_REQUEST_BYTES, share_port=True)
        self._server = grpc.server(unsent.before(self._pool), options=options)
        self.health = SyncHealth(self._server, full_name, unsent)
        self.port = bind(self._server, host, port, security, share_port=share_port)
        self._server.start()

    def close(self) -> None:
        """Stop at once."""
        self._server.stop(0).wait()
        self.health.close()
        self._pool.shutdown(wait=False)
