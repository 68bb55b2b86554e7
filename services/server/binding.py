"""Where a server listens."""

from __future__ import annotations

import socket
from typing import Protocol

import grpc

from llmgr_core.errors import LlmgrError
from services.security.server_security import ServerSecurity

# Clients that ping more often than this are told to go away; gRPC's default of five minutes is too strict for load balancers.
SHORTEST_PING_MS = 10_000
PING_STRIKES = 2
KEEPALIVE_MS, KEEPALIVE_TIMEOUT_MS = 60_000, 20_000
MAX_METADATA_BYTES = 8 << 10
MAX_CONNECTION_STREAMS = 1024


class Bindable(Protocol):
    """grpc.Server and grpc.aio.Server."""

    def add_insecure_port(self, address: str) -> int: ...

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int: ...


def server_options(
    max_request_bytes: int,
    *,
    share_port: bool = False,
    max_connection_age_s: float | None = None,
    max_streams: int = MAX_CONNECTION_STREAMS,
    max_unread: int | None = None,
) -> list[tuple[str, int]]:
    """Channel arguments of a server.

    Args:
        max_request_bytes: larger messages are refused by gRPC with RESOURCE_EXHAUSTED.
        share_port: let several processes listen on one port (SO_REUSEPORT). Without it a port in use is an error.
        max_connection_age_s: renew connections at this age, gently: calls under way end where they began.
        max_streams: calls that one connection may have open; further ones wait in the client.
        max_unread: calls that gRPC holds because the server has not asked for them yet; it refuses more by resetting their
            streams, which clients see as CANCELLED. None leaves gRPC's bound, which lies between 1,000 and 3,000.
    """
    options = [
        ("grpc.max_receive_message_length", max_request_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", int(share_port)),
        # Below the soft limit always taken, from there on refused with growing probability, above the other never read.
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", 2 * MAX_METADATA_BYTES),
        ("grpc.max_concurrent_streams", max_streams),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", SHORTEST_PING_MS),
        ("grpc.http2.max_ping_strikes", PING_STRIKES),
        # A client that has vanished without a word is noticed, and its connection closed, also where it had no call open.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        # What ends a connection whose peer sends nothing at all; gRPC's own bound is a minute.
        ("grpc.http2.ping_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ]
    if max_unread is not None:
        # Between the two gRPC would refuse with growing probability.
        options.append(("grpc.server.max_pending_requests", max_unread))
        options.append(("grpc.server.max_pending_requests_hard_limit", max_unread + 1))
    if max_connection_age_s is not None:
        options.append(("grpc.max_connection_age_ms", int(max_connection_age_s * 1000)))
    return options


def bind(server: Bindable, host: str, port: int, security: ServerSecurity, *, share_port: bool = False) -> int:
    """Listen, with TLS where there is a certificate.

    Args:
        server: a gRPC server that is not started yet.
        host: an address or a name of this machine.
        port: 0 takes any free one.
        security: of this server.
        share_port: other processes listen on it too, so that a port in use is no error.

    Returns:
        the port.

    Raises:
        LlmgrError: open to other machines without TLS, in use, or no address of this machine.
    """
    security.require_safe_host(host)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if not share_port:
        require_free_port(host, port)
    credentials = security.credentials()
    try:
        bound = server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
    except RuntimeError:
        bound = 0
    if bound == 0:
        raise LlmgrError(f"cannot listen on {address}", "choose another host or port")
    security.warn_of_open_host(host)
    return bound


def require_free_port(host: str, port: int) -> None:
    """Find out why a port cannot be had before gRPC says only that it cannot. Does nothing for port 0.

    Raises:
        LlmgrError: in use, or no address of this machine.
    """
    if port == 0:
        return
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            # Connections of an earlier server that are still closing do not make a port taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise LlmgrError(
            f"cannot listen on {host}:{port}: {error.strerror}", "stop what listens there, or choose another port"
        ) from None
