"""The connection to Redis, and the keys that are used there.

NAME:changes           stream; id = sequence of its last change "-" number, field "block" (messages.py)
NAME:source            hash: epoch and newest sequence of the published store, and a beat that grows while it is published
NAME:publisher         who publishes; lapses
NAME:wanted            list of copies that were asked for
NAME:wish:ID           lapses when who asked for a copy is gone
NAME:copy:ID           list: the parts of a copy that were not taken yet; lapses
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from llmgr_core.errors import LlmgrError
from llmgr_core.settings.replication import ReplicationSettings
from services.security.watched_files import read_secret
from services.server.addresses import is_loopback

CONNECT_SECONDS = 2.0
FIRST_BACKOFF_SECONDS = 0.1


@dataclass(frozen=True)
class Keys:
    """Names of the keys of one catalogue."""

    name: str

    @property
    def changes(self) -> str:
        return f"{self.name}:changes"

    @property
    def source(self) -> str:
        return f"{self.name}:source"

    @property
    def publisher(self) -> str:
        return f"{self.name}:publisher"

    @property
    def wanted(self) -> str:
        return f"{self.name}:wanted"

    def wish(self, copy: str) -> str:
        return f"{self.name}:wish:{copy}"

    def copy(self, copy: str) -> str:
        return f"{self.name}:copy:{copy}"


@dataclass(frozen=True)
class Source:
    """What NAME:source says; ``beat`` tells whether its publisher is alive."""

    epoch: str
    sequence: int
    beat: int


def read_source(link: Any, keys: Keys) -> Source | None:
    """The published store, or None before there was one."""
    values = link.hgetall(keys.source)
    try:
        return Source(values[b"epoch"].decode(), int(values[b"sequence"]), int(values[b"beat"]))
    except (KeyError, ValueError):
        return None


def connect(settings: ReplicationSettings) -> Any:
    """A client of Redis (redis.Redis); it connects when it is first used, and again whenever a connection broke.

    Raises:
        LlmgrError: the extra is not installed, a file is missing or open to other users, or Redis is on another machine and
            neither TLS nor plain_text is set.
    """
    try:
        import redis
        from redis.backoff import NoBackoff
        from redis.credentials import CredentialProvider
        from redis.retry import Retry
    except ImportError:
        raise LlmgrError("replication needs the package redis", "pip install 'llmgr[redis]'") from None
    parts = urlsplit(settings.redis)
    if parts.scheme == "redis" and not settings.plain_text and not is_loopback(parts.hostname or "localhost"):
        raise LlmgrError(
            f"refusing to talk to Redis at {parts.hostname} in plain text: who is on the way reads and changes the catalogue",
            "write rediss:// (TLS), or set replication.plain_text=true where the network is guarded",
        )
    options: dict[str, Any] = {
        "socket_timeout": settings.timeout_s,
        "socket_connect_timeout": min(CONNECT_SECONDS, settings.timeout_s),
        # What was sent may have been done: the caller looks before it does it again.
        "retry": Retry(NoBackoff(), 0),
        "client_name": "llmgr",
    }
    if settings.password_file or settings.username:
        path = Path(settings.password_file) if settings.password_file else None
        if path is not None:
            read_secret(path)

        class PasswordFile(CredentialProvider):
            """Reads the file at every connection, so that a password can be changed without a restart."""

            def get_credentials(self) -> tuple[str] | tuple[str, str]:
                password = "" if path is None else read_secret(path).decode().strip()
                return (settings.username, password) if settings.username else (password,)

        options["credential_provider"] = PasswordFile()
    if parts.scheme == "rediss":
        options |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
        named = {"ssl_ca_certs": "authorities", "ssl_certfile": "certificate", "ssl_keyfile": "private_key"}
        options |= {option: getattr(settings, name) for option, name in named.items() if getattr(settings, name)}
    return redis.Redis.from_url(settings.redis, **options)


def failures() -> tuple[type[Exception], ...]:
    """What may pass: faults of Redis, of the way to it, and of the store."""
    import redis

    return (redis.RedisError, OSError, LlmgrError)


class Backoff:
    """Pauses between attempts: each twice as long as the one before, up to the longest, and never quite regular.

    Args:
        longest_s: the longest pause.
    """

    def __init__(self, longest_s: float) -> None:
        self._longest = longest_s
        self._next = FIRST_BACKOFF_SECONDS

    def pause(self) -> float:
        """Seconds to wait now."""
        seconds, self._next = self._next, min(2 * self._next, self._longest)
        return min(seconds, self._longest) * random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """An attempt went well."""
        self._next = FIRST_BACKOFF_SECONDS
