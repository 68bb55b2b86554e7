"""One removal of a protection, and the rows of the catalogue."""

from __future__ import annotations

from typing import NamedTuple

KILL = "kill -9 of a server or a writer"
FULL_DISK = "disk full"
DAMAGE = "corrupt file or record"
NAN = "NaN or infinities from the language model"
BAD_TEXT = "bad UTF-8, NUL, empty or oversized text"
UNKNOWN_IDS = "unknown item ids"
DEADLINE = "deadline passed, call cancelled"
SLOW_CLIENT = "slow or idle clients"
OVERLOAD = "overload"
STRANGERS = "wrong, expired or no certificate; bad token"
HANG = "a ranking that hangs"
TERMINATION = "SIGTERM, drain"
CHANGES = "model change and upkeep while inserts go on"

SERVICES = "tests/services/"
STORE = "tests/store/"


class FaultMutation(NamedTuple):
    """One removal.

    Attributes:
        fault: the row of the catalogue.
        protection: what is removed, in words.
        file: relative to the repository.
        old: text that stands exactly once in it.
        new: what takes its place.
        test: node id, of all its cases where it has several; at least one of them must fail then.
    """

    fault: str
    protection: str
    file: str
    old: str
    new: str
    test: str
