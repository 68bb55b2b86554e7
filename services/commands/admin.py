"""``llmgr admin``: operate running ranking servers."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from llmgr_core.errors import LlmgrError
from services.commands.connecting import client_security, security_options


@click.command("admin")
@click.argument("action", type=click.Choice(["status", "reload", "rollback", "drain", "resume"]))
@click.option(
    "--address",
    "addresses",
    multiple=True,
    required=True,
    metavar="HOST:PORT",
    help="Admin port of a ranking process; repeat it for every worker and host.",
)
@click.option("--timeout", type=click.FloatRange(0.01), default=60.0, show_default=True, help="Seconds for each process.")
@security_options
def command(*, action: str, addresses: tuple[str, ...], timeout: float, **security: Path | None) -> None:
    """Operate ranking servers whose admin port is open (`llmgr serve ranking --admin-port`).

    \b
    status    what each process serves
    reload    look for another bundle or store now
    rollback  serve the bundle before this one, from memory, until another appears
    drain     health says NOT_SERVING, so that balancers look elsewhere
    resume    health says SERVING again

    Prints one JSON line for each process. One that fails does not keep the others from being asked.
    """
    from services.client.admin_client import AdminClient
    from services.client.errors import ServiceError

    guarded = client_security(security)
    failed = 0
    for address in addresses:
        try:
            with AdminClient(address, timeout=timeout, security=guarded) as client:
                facts = asdict(client.drain(resume=True) if action == "resume" else getattr(client, action)())
        except ServiceError as error:
            failed += 1
            facts = {"error": error.code.name, "reason": error.reason, "details": error.details}
        click.echo(json.dumps({"address": address, **facts}, ensure_ascii=False))
    if failed:
        raise LlmgrError(f"{failed} of {len(addresses)} processes did not do it; see above")
