"""``llmgr serve publisher`` and ``llmgr serve replica``: one store on several hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from llmgr_core.command_line.step import Step, step_command
from llmgr_core.errors import SettingsError
from llmgr_core.settings.replication import ReplicationSettings
from services.commands.announcing import announce


def _options(function: Any) -> Any:
    for option in reversed(
        (
            click.option("--store", type=click.Path(path_type=Path), help="Embedding store; by default the run's own."),
            click.option("--redis", help="Address of Redis: redis://, rediss:// (TLS) or unix://, never with a password."),
            click.option("--name", help="Name of the catalogue in Redis."),
            click.option("--password-file", help="File with the password of Redis, and nothing else."),
            click.option("--metrics-port", type=click.IntRange(-1, 65535), help="Prometheus page on loopback; -1 has none."),
            click.option(
                "--ready-file",
                type=click.Path(dir_okay=False, path_type=Path),
                help="Written once there is a store.",
            ),
        )
    ):
        function = option(function)
    return function


@step_command("publisher")
@_options
def publisher(step: Step, *, store: Path | None, metrics_port: int | None, ready_file: Path | None, **given: Any) -> None:
    """Send the changes of a store to Redis, for ranking servers on other hosts, until SIGTERM.

    Runs beside the embedding server, and only reads its store. What Redis missed while it was away is sent afterwards.
    """
    from services.replication.process import publish

    settings = _overridden(step, {**given, "publisher_metrics_port": metrics_port})
    publish(store or step.run.store, settings, lambda facts: announce({"service": "publisher", **facts}, ready_file))


@step_command("replica")
@_options
@click.option("--fresh", is_flag=True, help="Fetch a whole copy though a replica stands there, for example a damaged one.")
def replica(
    step: Step, *, store: Path | None, metrics_port: int | None, ready_file: Path | None, fresh: bool, **given: Any
) -> None:
    """Keep a copy of a published store on this host, for its ranking servers, until SIGTERM.

    Fetches a whole copy first, then every change. Rankers read the copy, so that they go on while Redis is away.
    """
    from services.replication.process import follow

    settings = _overridden(step, {**given, "replica_metrics_port": metrics_port})
    follow(
        store or step.run.store,
        settings,
        lambda facts: announce({"service": "replica", **facts}, ready_file),
        fresh=fresh,
    )


def _overridden(step: Step, given: dict[str, Any]) -> ReplicationSettings:
    values = step.settings.replication.model_dump() | {key: value for key, value in given.items() if value is not None}
    try:
        return ReplicationSettings.model_validate(values)
    except ValidationError as error:
        raise SettingsError("; ".join(one["msg"].removeprefix("Value error, ") for one in error.errors())) from None
