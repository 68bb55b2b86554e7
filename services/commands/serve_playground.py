"""``llmgr serve playground``: a page on which a person tries both services."""

from __future__ import annotations

import json
from pathlib import Path

import click

from services.commands.connecting import client_security, security_options


@click.command("playground")
@click.option("--ranking", default="127.0.0.1:50052", show_default=True, help="Ranking server, or several with commas between.")
@click.option("--embedding", default="127.0.0.1:50051", show_default=True, help="Embedding server.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Interface to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes a free one.")
@click.option(
    "--max-titles",
    type=click.IntRange(1),
    default=100_000,
    show_default=True,
    help="Items to keep for searching.",
)
@click.option(
    "--plain-text",
    is_flag=True,
    help="Listen beyond loopback: whoever reaches the page changes the catalogue.",
)
@security_options
def playground(
    *,
    ranking: str,
    embedding: str,
    host: str,
    port: int,
    max_titles: int,
    plain_text: bool,
    **security: Path | None,
) -> None:
    """Serve a page on which a person clicks a session, sees the ranking, and adds items, until SIGTERM.

    \b
    llmgr serve embedding --run runs/demo &
    llmgr serve ranking --run runs/demo &
    llmgr serve playground

    Prints one JSON line with the address to open in a browser. The two services may come and go while it runs.
    """
    from services.playground.serving import Playground
    from services.server.stopping import StopSignal

    page = Playground(ranking, embedding, host, port, max_titles, plain_text, client_security(security))
    with page.serve() as server, StopSignal() as stop:
        facts = {"service": "playground", "address": server.address, "ranking": ranking, "embedding": embedding}
        print(json.dumps({"event": "serving", **facts}), flush=True)
        stop.wait()
