"""One id for each request, in the logs of client and server."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

REQUEST_ID_KEY = "x-request-id"
LONGEST = 128


def request_id(metadata: Iterable[tuple[str, str | bytes]] | None) -> str:
    """The id that the client sent as ``x-request-id``, if it is short and printable, else a new one."""
    for key, value in metadata or ():
        if key == REQUEST_ID_KEY and isinstance(value, str) and 0 < len(value) <= LONGEST and value.isprintable():
            return value
    return secrets.token_hex(8)
