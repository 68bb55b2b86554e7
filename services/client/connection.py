"""A channel to one service, shared by the clients."""

from __future__ import annotations

import json
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from llmgr_core.errors import InputError
from services.client.addresses import channel_target, split_addresses, stays_on_this_machine
from services.client.calls import RetryBudget, RetryPolicy, call_with_retries
from services.client.security import ClientSecurity, FollowedToken
from services.client.trace_context import trace_headers

Reply = TypeVar("Reply")

# One message may hold a whole batch of sessions or a vector of thousands of numbers.
MAX_MESSAGE_BYTES = 64 << 20
SECONDS_BETWEEN_LOOKS = 1.0
CONNECT_TIMEOUT_MS = 5_000
# Of the server as a whole, not of one service: a wrong address then is told apart from a server that is down.
OVERALL_HEALTH = ""
# A machine that vanished is noticed within their sum. The servers take pings every 10 seconds.
KEEPALIVE_MS, KEEPALIVE_TIMEOUT_MS = 20_000, 10_000


class ServiceConnection(ABC):
    """What clients on threads and on an event loop have in common; reconnects by itself, is not for use across a fork.

    Calls go round all replicas; one whose health service says NOT_SERVING is left out.

    Args:
        address: "host:port", several replicas as "10.0.0.1:50052,10.0.0.2:50052" or a sequence, or any name gRPC resolves
            ("dns:///rankers:50052").
        stub: class of the generated stub.
        timeout: seconds a call may take, retries included, where the call itself names none.
        retry: when a failed call is made again.
        credentials: TLS of your own making; by default plain text, which is for loopback.
        metadata: sent with every call.
        security: TLS and token from files, followed while they are renewed.

    Raises:
        InputError: the addresses do not go together, a file of ``security`` is of no use, or its token would travel in plain
            text.
    """

    def __init__(
        self,
        address: str | Sequence[str],
        stub: Callable[[Any], Any],
        *,
        timeout: float,
        retry: RetryPolicy | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        metadata: Sequence[tuple[str, str]] = (),
        security: ClientSecurity | None = None,
    ) -> None:
        addresses = split_addresses(address)
        self.address = ",".join(addresses)
        self.timeout = timeout
        self.retry = retry or RetryPolicy()
        self.budget = RetryBudget()
        self._target = channel_target(addresses)
        self._given_metadata = tuple(metadata)
        self._security = security or ClientSecurity()
        if credentials is None:
            for one in addresses:
                self._security.require_safe_address(one)
        if len(addresses) > 1 and self._security.authorities is not None and not self._security.server_name:
            raise InputError("several addresses cannot all be the name in a certificate", "give the server_name to expect")
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

    @abstractmethod
    def _new_channel(self, credentials: grpc.ChannelCredentials | None, options: list[tuple[str, str | int]]) -> Any:
        """A channel to ``_target``; None for plain text."""

    @abstractmethod
    def _let_go(self, channel: Any) -> None:
        """Leave a channel whose calls under way shall end as they would have."""

    @property
    def _stub(self) -> Any:
        """The generated stub, on a channel whose certificates are those of the files."""
        if time.monotonic() - self._looked > SECONDS_BETWEEN_LOOKS and self._security.tls_files and not self._closed:
            self._follow_files()
        return self._current_stub

    def _follow_files(self) -> None:
        """Open another channel where the files changed."""
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
            old, self.channel = self.channel, self._open(credentials)
            self._current_stub = self._make_stub(self.channel)
            self._let_go(old)
        finally:
            self._opening.release()

    def _open(self, credentials: grpc.ChannelCredentials | None) -> Any:
        config: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}
        if "," in self.address or self.address.startswith("dns:"):
            # A server alone is asked whatever its health: there is no other, and while it stops it still answers.
            config["healthCheckConfig"] = {"serviceName": OVERALL_HEALTH}
        options: list[tuple[str, str | int]] = [
            ("grpc.service_config", json.dumps(config)),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.keepalive_time_ms", KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
            # What ends a connection whose server sends nothing at all; gRPC's own bound is a minute.
            ("grpc.http2.ping_timeout_ms", KEEPALIVE_TIMEOUT_MS),
            # gRPC waits up to two minutes before it tries a server again that was down; a restart takes seconds.
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.initial_reconnect_backoff_ms", 100),
            # And 20 seconds for a connection that is taken but never answered, as one of a server that hangs or just stopped.
            ("grpc.min_reconnect_backoff_ms", CONNECT_TIMEOUT_MS),
        ]
        if all(stays_on_this_machine(one) for one in self.address.split(",")):
            # gRPC would ask a proxy that the environment names, tokens and all.
            options.append(("grpc.enable_http_proxy", 0))
        if credentials is not None and self._security.server_name:
            options.append(("grpc.ssl_target_name_override", self._security.server_name))
        return self._new_channel(credentials, options)


class Connection(ServiceConnection):
    """For threads: safe to share between them. A context manager that closes itself; see ServiceConnection."""

    def close(self) -> None:
        self._closed = True
        self.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _call(self, method: Callable[..., Reply], request: object, timeout: float | None) -> Reply:
        seconds = self.timeout if timeout is None else timeout
        return call_with_retries(method, request, seconds, self.retry, self.metadata, self.budget)

    def _new_channel(self, credentials: grpc.ChannelCredentials | None, options: list[tuple[str, str | int]]) -> grpc.Channel:
        if credentials is None:
            return grpc.insecure_channel(self._target, options)
        return grpc.secure_channel(self._target, credentials, options)

    def _let_go(self, channel: grpc.Channel) -> None:
        """It closes with its last call."""
