"""A channel to one service, shared by the clients."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import grpc

from services.client.calls import RetryPolicy

# One message may hold a whole batch of sessions or a vector of thousands of numbers.
MAX_MESSAGE_BYTES = 64 << 20
SERVICE_CONFIG = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})


class Connection:
    """Opens on first use and reconnects by itself; safe to share between threads, not across a fork.

    Args:
        address: "host:port", or any name gRPC resolves ("dns:///rankers:50052"); calls go round all addresses of a name.
        timeout: seconds a call may take, retries included, where the call itself names none.
        retry: when a failed call is made again.
        credentials: TLS; by default plain text, which is for loopback.
        metadata: sent with every call.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float,
        retry: RetryPolicy | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> None:
        options = [
            ("grpc.service_config", SERVICE_CONFIG),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            # gRPC waits up to two minutes before it tries a server again that was down; a restart takes seconds.
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.initial_reconnect_backoff_ms", 100),
        ]
        self.channel = (
            grpc.insecure_channel(address, options)
            if credentials is None
            else grpc.secure_channel(address, credentials, options)
        )
        self.address = address
        self.timeout = timeout
        self.retry = retry or RetryPolicy()
        self.metadata = tuple(metadata)

    def close(self) -> None:
        self.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
