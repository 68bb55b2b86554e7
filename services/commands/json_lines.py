"""JSON lines in and out of commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import IO, Any

import click

from llmgr_core.errors import InputError

STANDARD_INPUT = "-"
EXIT_CODES = """\b
Exit codes: 0 everything was done; 1 some lines were refused, the others are done;
2 wrong use, or the server refused the call; 3 the server cannot be reached or is overloaded: try again later."""


def numbered_lines(lines: IO[str]) -> Iterator[tuple[int, str]]:
    """Number (from 1) and text of every line that is not blank, as soon as it is there.

    Raises:
        InputError: a line is not UTF-8.
    """
    number = 0
    try:
        for number, line in enumerate(iter(lines.readline, ""), 1):
            if line.strip():
                yield number, line.strip()
    except UnicodeDecodeError:
        raise InputError(f"{lines.name}: not UTF-8 after line {number}", "convert the file to UTF-8") from None


def print_line(fields: dict[str, Any]) -> None:
    """One JSON object on standard output, at once: whoever reads the pipe wants it now."""
    click.echo(json.dumps(fields, ensure_ascii=False))


def plain(result: Any) -> dict[str, Any]:
    """A result of a client without its vector."""
    fields = asdict(result)
    fields.pop("vector", None)
    return fields


def end_with_refusals(refused: int, what: str) -> None:
    """Leave with exit code 1 where lines were refused."""
    if refused:
        click.echo(f"llmgr: {refused} {what} refused; see above", err=True)
        sys.exit(1)
