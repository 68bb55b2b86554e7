"""Errors that a person can act on."""

from __future__ import annotations


class LlmgrError(Exception):
    """Something the caller can put right.

    Args:
        message: what is wrong, naming the bad value and where it stands.
        hint: the way out, one sentence; shown on a line of its own.

    Attributes:
        exit_code: of a command that ends with it.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}\n  hint: {self.hint}" if self.hint else message


class SettingsError(LlmgrError):
    """A configuration file or an override that cannot be taken as it stands."""


class ArtefactError(LlmgrError):
    """A directory that is missing, damaged, of another version, or does not belong to the others."""


class InputError(LlmgrError):
    """Data from outside (a file, a row, a request) that cannot be used."""
