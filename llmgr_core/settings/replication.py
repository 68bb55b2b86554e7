"""Settings of section [replication]."""

from __future__ import annotations

from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from llmgr_core.settings.section import Section


class ReplicationSettings(Section):
    """Section [replication]: the change log of one store, carried by Redis to ranking hosts; needs the extra ``redis``.

    Attributes:
        redis: where Redis is: "redis://host:6379/0", "rediss://..." for TLS, or "unix:///path". Never with a password in it.
        name: keys in Redis begin with it; one for each catalogue.
        username: of Redis' access list; "" is its default user.
        password_file: file that holds the password alone; other users must not be able to read it. Read again at every
            connection. "" has none.
        authorities: PEM file of the authorities that Redis' certificate comes from; "" takes the system's.
        certificate, private_key: PEM files of the client certificate, where Redis asks for one.
        plain_text: talk to a Redis on another machine without TLS. Whoever is on the way then reads and changes the catalogue.
        keep_changes: newest changes that stay in the stream. A replica that was away for longer fetches a whole copy.
        poll_ms: how often the publisher looks at its store.
        timeout_s: longest wait for an answer of Redis.
        longest_backoff_s: longest pause between two attempts to reach Redis.
        lease_s: how long a publisher that has vanished keeps another store from being published under the same name.
        max_copies: whole copies that a publisher sends at a time.
        publisher_metrics_port, replica_metrics_port: Prometheus pages, on loopback only; 0 takes a free port, -1 has none.
    """

    redis: str = "redis://127.0.0.1:6379/0"
    name: str = Field(default="llmgr", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    username: str = ""
    password_file: str = ""
    authorities: str = ""
    certificate: str = ""
    private_key: str = ""
    plain_text: bool = False
    keep_changes: int = Field(default=100_000, ge=1, le=100_000_000)
    poll_ms: float = Field(default=20.0, ge=1.0, le=10_000.0)
    timeout_s: float = Field(default=5.0, ge=2.0, le=300.0)
    longest_backoff_s: float = Field(default=2.0, ge=0.1, le=300.0)
    lease_s: float = Field(default=10.0, ge=1.0, le=3600.0)
    max_copies: int = Field(default=4, ge=1, le=64)
    publisher_metrics_port: int = Field(default=9466, ge=-1, le=65535)
    replica_metrics_port: int = Field(default=9467, ge=-1, le=65535)

    @model_validator(mode="after")
    def _address_of_redis(self) -> Self:
        parts = urlsplit(self.redis)
        if parts.scheme not in ("redis", "rediss", "unix"):
            raise ValueError("redis is an address like redis://host:6379/0, rediss://host:6379/0 (TLS) or unix:///path")
        if parts.password is not None or parts.username is not None or "password" in parts.query:
            raise ValueError("redis holds no password: put it in a file of its own and name that in password_file")
        if bool(self.certificate) != bool(self.private_key):
            raise ValueError("certificate and private_key are given together or not at all")
        if (self.authorities or self.certificate) and parts.scheme != "rediss":
            raise ValueError("certificates are for TLS: write rediss:// in redis")
        return self
