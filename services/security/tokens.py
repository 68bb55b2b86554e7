"""Bearer tokens (RFC 6750) and what they allow."""

from __future__ import annotations

import enum
import hashlib
import hmac
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llmgr_core.errors import InputError
from services.security.watched_files import Signature, read_secret, signature_of

SHORTEST_TOKEN = 20
LONGEST_TOKEN = 1024
HASHED = "sha256:"
TOKEN_FORM = re.compile(r"[A-Za-z0-9\-._~+/]+=*\Z")
DIGEST_FORM = re.compile(r"[0-9a-f]{64}\Z")
NAME_FORM = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
WAY_OUT = (
    f"a line is: scope, name, token; scope is read, write or admin, the token at least {SHORTEST_TOKEN} letters, for example "
    "from `openssl rand -hex 32`, or sha256: and the hex digest of one"
)


class Scope(enum.IntEnum):
    """What a caller may do; each scope holds those below it."""

    READ = 1
    WRITE = 2
    ADMIN = 3


@dataclass(frozen=True)
class Caller:
    """Who a token belongs to.

    Attributes:
        name: shows in logs.
        scope: the most it may do.
    """

    name: str
    scope: Scope


class TokenFile:
    """The tokens of a file, read again whenever it changes; safe to ask from several threads.

    A changed file that cannot be used leaves the tokens as they were, and is reported once.

    Args:
        path: the file; its lines are "SCOPE NAME TOKEN", empty ones and those after "#" are skipped.
        on_reload: told what came of a changed file: None, or why it was refused.

    Raises:
        InputError: missing, readable by others, or not of this form; the message never holds a token.
    """

    def __init__(self, path: Path, on_reload: Callable[[Exception | None], None] = lambda problem: None) -> None:
        self._path = path
        self._on_reload = on_reload
        self._reading = threading.Lock()
        self._seen = self._signature()
        self._callers = parse_tokens(read_secret(path), str(path))

    def caller(self, token: str) -> Caller | None:
        """Whose token this is; None for one that is not in the file.

        All known digests are compared, each in constant time, so that the time tells nothing about any of them.
        """
        self._refresh()
        if len(token) > LONGEST_TOKEN:
            return None
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        found = None
        for known, caller in self._callers:
            if hmac.compare_digest(known, digest):
                found = caller
        return found

    def _refresh(self) -> None:
        if self._signature() == self._seen or not self._reading.acquire(blocking=False):
            return
        try:
            # Asked before the file is read: a change in between is seen by the next call.
            self._seen = self._signature()
            self._callers = parse_tokens(read_secret(self._path), str(self._path))
        except InputError as problem:
            self._on_reload(problem)
        else:
            self._on_reload(None)
        finally:
            self._reading.release()

    def _signature(self) -> Signature:
        try:
            return signature_of([self._path])
        except OSError:
            return ()


def parse_tokens(raw: bytes, source: str) -> list[tuple[bytes, Caller]]:
    """SHA-256 digests of tokens, and who they belong to.

    Args:
        raw: the file.
        source: its name, for messages.

    Raises:
        InputError: a line of another form, a token twice, or none at all; the message names the line and never the token.
    """
    try:
        lines = raw.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{source} is not UTF-8", WAY_OUT) from None
    callers: dict[bytes, Caller] = {}
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 3 or words[0].upper() not in Scope.__members__ or not NAME_FORM.match(words[1]):
            raise InputError(f"{source}:{number} is no token line", WAY_OUT)
        digest = _digest(words[2])
        if digest is None:
            raise InputError(f"{source}:{number}: the token is too short, too long or holds other signs", WAY_OUT)
        if digest in callers:
            raise InputError(f"{source}:{number}: the same token stands on an earlier line", "give each caller its own")
        callers[digest] = Caller(words[1], Scope[words[0].upper()])
    if not callers:
        raise InputError(f"{source} holds no token: nobody could call", WAY_OUT)
    return list(callers.items())


def _digest(word: str) -> bytes | None:
    if word.startswith(HASHED):
        digest = word.removeprefix(HASHED)
        return bytes.fromhex(digest) if DIGEST_FORM.match(digest) else None
    if SHORTEST_TOKEN <= len(word) <= LONGEST_TOKEN and TOKEN_FORM.match(word):
        return hashlib.sha256(word.encode("ascii")).digest()
    return None
