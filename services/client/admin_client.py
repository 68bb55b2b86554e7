"""Client of a ranking process's admin port."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from services.client.calls import RetryPolicy
from services.client.connection import Connection
from services.client.conversion import plain_fields
from services.client.security import ClientSecurity
from services.contract import admin_service_pb2 as messages
from services.contract import admin_service_pb2_grpc


@dataclass(frozen=True)
class ProcessStatus:
    """What one ranking process serves.

    Attributes:
        server_version: of the program.
        pid: of the process.
        model_version: bundle that ranks.
        previous_model_version: bundle that a rollback goes to; "" for none.
        sequence: newest change of the store in it.
        items: that can be ranked.
        draining: whether health says NOT_SERVING because somebody asked for it.
    """

    server_version: str
    pid: int
    model_version: str
    previous_model_version: str
    sequence: int
    items: int
    draining: bool


class AdminClient(Connection):
    """Operates one process; nothing is retried, since a rollback that is made twice goes forward again.

    Every method raises ServiceError where the server, or the way to it, fails.
    """

    def __init__(self, address: str, *, timeout: float = 60.0, security: ClientSecurity | None = None) -> None:
        super().__init__(
            address,
            admin_service_pb2_grpc.AdminServiceStub,
            timeout=timeout,
            retry=RetryPolicy(attempts=1),
            security=security,
        )

    def status(self) -> ProcessStatus:
        """What it serves."""
        return _status(self._call(self._stub.GetStatus, messages.GetStatusRequest(), None))

    def reload(self) -> ProcessStatus:
        """Look for another bundle or store now, and serve it."""
        return _status(self._call(self._stub.ReloadBundle, messages.ReloadBundleRequest(), None))

    def rollback(self) -> ProcessStatus:
        """Serve the bundle before this one, from memory, until another appears."""
        return _status(self._call(self._stub.RollbackBundle, messages.RollbackBundleRequest(), None))

    def drain(self, *, resume: bool = False) -> ProcessStatus:
        """Have health say NOT_SERVING, or SERVING again."""
        return _status(self._call(self._stub.Drain, messages.DrainRequest(resume=resume), None))


def _status(reply: Any) -> ProcessStatus:
    return ProcessStatus(**plain_fields(reply.status))
