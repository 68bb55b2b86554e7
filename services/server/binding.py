"""Where a server listens."""

from __future__ import annotations

import ipaddress
import socket
from typing import Protocol

from llmgr_core.errors import LlmgrError

# Clients that ping more often than this are told to go away; gRPC's default of five minutes is too strict for load balancers.
SHORTEST_PING_MS = 10_000


class Bindable(Protocol):
    """grpc.Server and grpc.aio.Server."""

    def add_insecure_port(self, address: str) -> int: ...


def server_options(
    max_request_bytes: int, *, share_port: bool = False, max_connection_age_s: float | None = None
) -> list[tuple[str, int]]:
    """Channel arguments of a server.

    Args:
        max_request_bytes: larger messages are refused by gRPC with RESOURCE_EXHAUSTED.
        share_port: let several processes listen on one port (SO_REUSEPORT). Without it a port in use is an error.
        max_connection_age_s: renew connections at this age, so that calls spread over processes.
    """
    options = [
        ("grpc.max_receive_message_length", max_request_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", int(share_port)),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", SHORTEST_PING_MS),
    ]
    if max_connection_age_s is not None:
        options.append(("grpc.max_connection_age_ms", int(max_connection_age_s * 1000)))
    return options


def bind(server: Bindable, host: str, port: int, *, allow_remote: bool = False) -> int:
    """Listen without TLS.

    Args:
        server: a gRPC server that is not started yet.
        host: an address or a name of this machine.
        port: 0 takes any free one.
        allow_remote: listen on other interfaces than loopback too, in plain text.

    Returns:
        the port.

    Raises:
        LlmgrError: not loopback, in use, or no address of this machine.
    """
    if not allow_remote and not is_loopback(host):
        raise LlmgrError(
            f"refusing to listen on {host} in plain text: other machines could read and change the catalogue",
            "listen on 127.0.0.1 and put a proxy with TLS in front",
        )
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    require_free_port(host, port)
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError:
        bound = 0
    if bound == 0:
        raise LlmgrError(f"cannot listen on {address}", "choose another host or port")
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


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
