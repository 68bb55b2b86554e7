"""``llmgr serve``: the two servers, and what brings one store to several hosts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from llmgr_core.command_line.step import Step, step_command
from llmgr_core.errors import SettingsError
from llmgr_core.settings import Settings
from services.commands.announcing import announce
from services.commands.serve_playground import playground
from services.commands.serve_replication import publisher, replica

# One thread a process: a ranking takes a fraction of a millisecond, and threads of a numeric library that wait for each other
# take more than they give. Only a library that is not loaded yet reads these.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# gRPC's newer way of reading sockets, on threads of its own, hands every call from thread to thread twice more: a fifth fewer
# sessions a second on one core (docs/ranking-service.md). Whoever sets the variable decides.
READ_ON_SERVING_THREAD = "-event_engine_listener"


SECURITY_OPTIONS = (
    click.option("--tls-certificate", help="PEM file of the server's certificate and its chain; turns TLS on."),
    click.option("--tls-key", help="PEM file of its key."),
    click.option("--tls-client-ca", help="PEM file of authorities; a client must show a certificate of theirs."),
    click.option("--tokens", help="File of bearer tokens, a line each: scope (read, write, admin), name, token."),
    click.option(
        "--plain-text",
        is_flag=True,
        default=None,
        help="Listen on other interfaces than loopback without TLS: whoever reaches the port reads everything.",
    ),
)


@click.group("serve")
def command() -> None:
    """Start a server: `ranking` answers RankSession, `embedding` takes new items; `publisher` and `replica` bring the items to
    ranking servers on other hosts."""


def _port_options(service: str) -> Any:
    def declare(function: Any) -> Any:
        options = (
            click.option("--store", type=click.Path(path_type=Path), help="Embedding store; by default the run's own."),
            click.option("--host", help="Interface to listen on; other than loopback it needs a certificate."),
            click.option("--port", type=click.IntRange(0, 65535), help=f"Port of the {service} service; 0 takes a free one."),
            click.option("--metrics-port", type=click.IntRange(-1, 65535), help="Prometheus page on loopback; -1 has none."),
            *SECURITY_OPTIONS,
            click.option(
                "--ready-file",
                type=click.Path(dir_okay=False, path_type=Path),
                help="Written, with the address, once the server answers.",
            ),
        )
        for option in reversed(options):
            function = option(function)
        return function

    return declare


@step_command("ranking")
@click.option("--bundle", type=click.Path(path_type=Path), help="Bundle to serve; by default the run's own.")
@click.option("--workers", type=click.IntRange(1, 256), help="Processes that share the port.")
@click.option("--own-core/--any-core", default=None, help="Hold each process to a core that no other one has claimed.")
@click.option("--admin-port", type=click.IntRange(-1, 65535), help="Port of `llmgr admin`, worker N on the N-th after it.")
@click.option("--health-port", type=click.IntRange(-1, 65535), help="Port of health alone, for balancers; -1 has none.")
@_port_options("ranking")
def ranking(
    step: Step,
    *,
    bundle: Path | None,
    workers: int | None,
    own_core: bool | None,
    admin_port: int | None,
    health_port: int | None,
    store: Path | None,
    host: str | None,
    port: int | None,
    metrics_port: int | None,
    ready_file: Path | None,
    **security: Any,
) -> None:
    """Serve RankSession from a bundle and the store beside it, until SIGTERM.

    Prints one JSON line with the address once it answers. Follows the store's change log, and takes over a new bundle that
    appears at the same place, without a restart.
    """
    for variable in THREAD_VARIABLES:
        os.environ.setdefault(variable, "1")
    os.environ.setdefault("GRPC_EXPERIMENTS", READ_ON_SERVING_THREAD)
    from services.ranking.process import serve_ranking

    given = {
        "host": host,
        "ranking_port": port,
        "metrics_port": metrics_port,
        "workers": workers,
        "own_core": own_core,
        "admin_port": admin_port,
        "health_port": health_port,
    }
    settings = _secured(_overridden(step.settings, "serve", given), security)
    serve_ranking(
        bundle or step.run.bundle,
        store or step.run.store,
        settings.serve,
        lambda facts: announce({"service": "ranking", **facts}, ready_file),
    )


@step_command("embedding")
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    help="Take engine and text cleaner from this bundle; by default from the run's tuned model, else from its bundle.",
)
@click.option(
    "--next-bundle",
    type=click.Path(path_type=Path),
    help="Bundle of a new language model: write inserts under both, embed all items with it in the background, then serve it.",
)
@_port_options("embedding")
def embedding(
    step: Step,
    *,
    bundle: Path | None,
    next_bundle: Path | None,
    store: Path | None,
    host: str | None,
    port: int | None,
    metrics_port: int | None,
    ready_file: Path | None,
    **security: Any,
) -> None:
    """Serve EmbedItem: clean and embed item texts, store the vectors durably, until SIGTERM.

    Prints one JSON line with the address once it answers. It is the one writer of its store.
    """
    from services.embedding.loading import encoder_from_bundle, encoder_from_run
    from services.embedding.server import Listening, run
    from services.server.observation import configure_logs

    settings = _overridden(step.settings, "serve", {"host": host, "embedding_port": port})
    settings = _secured(_overridden(settings, "embed", {"metrics_port": metrics_port}), security)
    configure_logs()
    if bundle is None and not step.run.tuned.is_dir() and step.run.bundle.is_dir():
        bundle = step.run.bundle
    if bundle is not None:
        encoder = encoder_from_bundle(bundle, settings.engine)
    else:
        encoder = encoder_from_run(step.run, settings.engine)
    next_encoder = None if next_bundle is None else encoder_from_bundle(next_bundle, settings.engine)

    def on_ready(listening: Listening) -> None:
        facts = {
            "address": listening.address,
            "metrics_ports": [] if listening.metrics_port is None else [listening.metrics_port],
            "pids": [os.getpid()],
            "model_version": encoder.fingerprint,
        }
        announce({"service": "embedding", **facts}, ready_file)

    run(encoder, store or step.run.store, settings, on_ready, next_encoder)


command.add_command(ranking)
command.add_command(embedding)
command.add_command(playground)
command.add_command(publisher)
command.add_command(replica)


def _secured(settings: Settings, options: dict[str, Any]) -> Settings:
    """Settings with SECURITY_OPTIONS over section [serve.security].

    Raises:
        SettingsError: options that do not belong together.
    """
    names = {
        "certificate": "tls_certificate",
        "private_key": "tls_key",
        "client_authorities": "tls_client_ca",
        "tokens": "tokens",
        "plain_text": "plain_text",
    }
    given = {name: options[option] for name, option in names.items() if options[option] is not None}
    try:
        return _overridden(settings, "serve", {"security": settings.serve.security.model_dump() | given})
    except ValidationError as error:
        raise SettingsError("; ".join(one["msg"].removeprefix("Value error, ") for one in error.errors())) from None


def _overridden(settings: Settings, section: str, given: dict[str, Any]) -> Settings:
    values = settings.model_dump()
    values[section] |= {key: value for key, value in given.items() if value is not None}
    return Settings.model_validate(values)
