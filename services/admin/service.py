"""The methods of AdminService."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Protocol

import grpc

from llmgr_core import __version__
from services.contract import admin_service_pb2 as messages
from services.server.errors import RequestError


@dataclass(frozen=True)
class ServedState:
    """What a server serves now.

    Attributes:
        version: of the bundle.
        previous: version that a rollback goes to, "" for none.
        sequence: newest change of the store in it.
        items: that can be ranked.
        draining: whether health says NOT_SERVING because somebody asked for it.
    """

    version: str
    previous: str
    sequence: int
    items: int
    draining: bool


class Controlled(Protocol):
    """A server that can be operated."""

    def state(self) -> ServedState: ...

    def reload(self) -> bool | None:
        """Whether something new is served; None where it was refused."""

    def roll_back(self) -> bool:
        """Whether there was something to go back to."""

    def drain(self, draining: bool) -> None: ...


class AdminMethods:
    """Answers requests; the arguments of every method are a parsed message and gRPC's context."""

    def __init__(self, server: Controlled) -> None:
        self._server = server

    def get_status(self, request: messages.GetStatusRequest, context: grpc.ServicerContext) -> messages.GetStatusResponse:
        """GetStatus."""
        return messages.GetStatusResponse(status=self._status())

    def reload_bundle(
        self, request: messages.ReloadBundleRequest, context: grpc.ServicerContext
    ) -> messages.ReloadBundleResponse:
        """ReloadBundle."""
        exchanged = self._server.reload()
        if exchanged is None:
            raise _refused("what stands there cannot be served; the server's log says why", "BUNDLE_REFUSED")
        return messages.ReloadBundleResponse(exchanged=exchanged, status=self._status())

    def rollback_bundle(
        self, request: messages.RollbackBundleRequest, context: grpc.ServicerContext
    ) -> messages.RollbackBundleResponse:
        """RollbackBundle."""
        if not self._server.roll_back():
            raise _refused("no other bundle was served before by this process", "NO_PREVIOUS_BUNDLE")
        return messages.RollbackBundleResponse(status=self._status())

    def drain(self, request: messages.DrainRequest, context: grpc.ServicerContext) -> messages.DrainResponse:
        """Drain."""
        self._server.drain(not request.resume)
        return messages.DrainResponse(status=self._status())

    def _status(self) -> messages.ProcessStatus:
        state = self._server.state()
        return messages.ProcessStatus(
            server_version=__version__,
            pid=os.getpid(),
            model_version=state.version,
            previous_model_version=state.previous,
            sequence=state.sequence,
            items=state.items,
            draining=state.draining,
        )


def _refused(message: str, reason: str) -> RequestError:
    return RequestError(grpc.StatusCode.FAILED_PRECONDITION, message, reason)
