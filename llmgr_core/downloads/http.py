"""Fetching one file from its official address."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from llmgr_core.errors import InputError
from llmgr_core.progress import Reporter

SECONDS_WITHOUT_A_BYTE = 30.0
BLOCK = 1 << 20


def fetch_file(address: str, path: Path, reporter: Reporter, hint: str) -> None:
    """Download ``address`` to ``path``.

    Args:
        hint: what to do where the network does not reach it.

    Raises:
        InputError: not an http(s) address, not reachable, refused, or cut off before its announced length.
    """
    if urlsplit(address).scheme not in {"http", "https"}:
        raise InputError(f"{address} is not an http address")
    request = urllib.request.Request(address, headers={"User-Agent": "llmgr"})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS_WITHOUT_A_BYTE) as answer, path.open("wb") as sink:
            announced = answer.headers.get("Content-Length")
            total = int(announced) if announced and announced.isdigit() else None
            received = 0
            with reporter.bar(f"download {path.name}", total) as advance:
                while block := answer.read(BLOCK):
                    sink.write(block)
                    received += len(block)
                    advance(len(block))
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise InputError(f"{address} cannot be fetched: {reason}", hint) from error
    if total is not None and received != total:
        raise InputError(f"{address} was cut off: {received} of {total} bytes came", hint)
