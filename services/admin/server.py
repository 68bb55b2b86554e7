"""The port that AdminService is served on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc

from services.admin.service import AdminMethods, Controlled
from services.contract import admin_service_pb2 as messages
from services.security.server_security import ServerSecurity
from services.server.binding import bind, server_options
from services.server.bounded_reflection import BoundedReflection
from services.server.message_first import UnsentMessages
from services.server.observation import CallObserver
from services.server.sync_methods import unary_method

FULL_NAME = messages.DESCRIPTOR.services_by_name["AdminService"].full_name
THREADS = 2
MAX_REQUEST_BYTES = 64 << 10
MAX_UNSENT = 64


class AdminServer:
    """Serves from when it is made until it is closed, apart from the queue and the threads of those who rank.

    Args:
        controlled: what is operated.
        host, port: where; 0 takes any free port.
        security: certificate and tokens of the server that is operated.
        observer: logs and counts the calls.

    Raises:
        LlmgrError: the port is in use, or other machines could operate the server without showing who they are.
    """

    def __init__(self, controlled: Controlled, host: str, port: int, security: ServerSecurity, observer: CallObserver) -> None:
        security.require_known_callers(host)
        self._pool = ThreadPoolExecutor(THREADS, "admin")
        unsent = UnsentMessages(MAX_UNSENT, observer)
        self._server = grpc.server(
            unsent.before(self._pool), interceptors=security.sync_interceptors(), options=server_options(MAX_REQUEST_BYTES)
        )
        answers = AdminMethods(controlled)
        methods = {
            "GetStatus": unary_method("GetStatus", messages.GetStatusRequest, answers.get_status, observer),
            "ReloadBundle": unary_method("ReloadBundle", messages.ReloadBundleRequest, answers.reload_bundle, observer),
            "RollbackBundle": unary_method("RollbackBundle", messages.RollbackBundleRequest, answers.rollback_bundle, observer),
            "Drain": unary_method("Drain", messages.DrainRequest, answers.drain, observer),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(FULL_NAME, methods),))
        self._reflection = BoundedReflection(self._server, FULL_NAME, observer)
        self.port = bind(self._server, host, port, security)
        self._server.start()

    def close(self) -> None:
        """Stop at once."""
        self._server.stop(0).wait()
        self._reflection.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
