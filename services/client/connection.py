"""A channel to one service, shared by the clients."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import grpc

from llmgr_core.errors import InputError
from services.client.calls import RetryPolicy
from services.client.security import ClientSecurity, FollowedToken
from services.client.trace_context import trace_headers

# One message may hold a whole batch of sessions or a vector of thousands of numbers.
MAX_MESSAGE_BYTES = 64 << 20
SERVICE_CONFIG = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})
SECONDS_BETWEEN_LOOKS = 1.0


class Connection:
    """Opens on first use and reconnects by itself; safe to share between threads, not across a fork.

    Args:
        address: "host:port", or any name gRPC resolves ("dns:///rankers:50052"); calls go round all addresses of a name.
        stub: class of the generated stub.
        timeout: seconds a call may take, retries included, where the call itself names none.
        retry: when a failed call is made again.
        credentials: TLS of your own making; by default plain text, which is for loopback.
        metadata: sent with every call.
        security: TLS and token from files, followed while they are renewed.

    Raises:
        InputError: a file of ``security`` is of no use, or its token would travel in plain text.
    """

    def __init__(
        self,
        address: str,
        stub: Callable[[grpc.Channel], Any],
        *,
        timeout: float,
        retry: RetryPolicy | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        metadata: Sequence[tuple[str, str]] = (),
        security: ClientSecurity | None = None,
    ) -> None:
        self.address = address
        self.timeout = timeout
        self.retry = retry or RetryPolicy()
        self._given_metadata = tuple(metadata)
        self._security = security or ClientSecurity()
        if credentials is None:
            self._security.require_safe_address(address)
        token_file = self._security.token_file
        self._token = None if token_file is None else FollowedToken(token_file)
        self._make_stub = stub
        self._credentials = credentials
        self._opening = threading.Lock()
        self._closed = False
        self._seen = self._security.signature()
        self._looked = time.monotonic()
        self.channel = self._open(credentials or self._security.credentials())
        self._current_stub = stub(self.channel)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What the next call carries: what was given, the token, and the trace that the caller is in."""
        token = () if self._token is None else (("authorization", f"Bearer {self._token.current()}"),)
        return (*self._given_metadata, *token, *trace_headers())

    def close(self) -> None:
        self._closed = True
        self.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def _stub(self) -> Any:
        """The generated stub, on a channel whose certificates are those of the files."""
        if time.monotonic() - self._looked > SECONDS_BETWEEN_LOOKS and self._security.tls_files and not self._closed:
            self._follow_files()
        return self._current_stub

    def _follow_files(self) -> None:
        """Open another channel where the files changed.

        The old one is let go, not closed: calls that are under way on it end as they would have.
        """
        if not self._opening.acquire(blocking=False):
            return
        try:
            self._looked = time.monotonic()
            signature = self._security.signature()
            if signature in (self._seen, ()):
                return
            try:
                credentials = self._security.credentials()
            except InputError:
                # Half-way through a renewal; what stands goes on, and the next look comes soon.
                return
            self._seen = signature
            self.channel = self._open(credentials)
            self._current_stub = self._make_stub(self.channel)
        finally:
            self._opening.release()

    def _open(self, credentials: grpc.ChannelCredentials | None) -> grpc.Channel:
        options: list[tuple[str, str | int]] = [
            ("grpc.service_config", SERVICE_CONFIG),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            # gRPC waits up to two minutes before it tries a server again that was down; a restart takes seconds.
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.initial_reconnect_backoff_ms", 100),
        ]
        if credentials is None:
            return grpc.insecure_channel(self.address, options)
        if self._security.server_name:
            options.append(("grpc.ssl_target_name_override", self._security.server_name))
        return grpc.secure_channel(self.address, credentials, options)
