"""Options of commands that call a server: whom to trust, and what to show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from services.client import ClientSecurity

Command = TypeVar("Command", bound=Callable[..., Any])


def security_options(function: Command) -> Command:
    """Adds --tls-ca, --tls-certificate, --tls-key and --token-file; give their values to ``client_security``.

    The environment variables hold paths: a token itself never stands in one, where every child process could read it.
    """
    for name, variable, text in (
        ("--token-file", "LLMGR_TOKEN_FILE", "File that holds a bearer token, readable by you alone."),
        ("--tls-key", "LLMGR_TLS_KEY", "PEM file of that certificate's key."),
        ("--tls-certificate", "LLMGR_TLS_CERTIFICATE", "PEM file of a certificate to show to the server."),
        ("--tls-ca", "LLMGR_TLS_CA", "PEM file of the authorities that the server's certificate comes from; turns TLS on."),
    ):
        kind = click.Path(dir_okay=False, path_type=Path)
        function = click.option(name, type=kind, envvar=variable, show_envvar=True, help=text)(function)
    return function


def client_security(options: dict[str, Path | None]) -> ClientSecurity:
    """What the options of ``security_options`` ask for.

    Raises:
        InputError: options that do not belong together.
    """
    from services.client import ClientSecurity

    return ClientSecurity(options["tls_ca"], options["tls_certificate"], options["tls_key"], options["token_file"])
