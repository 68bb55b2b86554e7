"""What every step command has in common: settings, run directory, reporter."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from llmgr_core.progress import Reporter
from llmgr_core.run_directory import RunDirectory
from llmgr_core.settings import Settings, load_settings


@dataclass(frozen=True)
class Step:
    """What a step is given: its settings, the run's directory, where to report, and whether to redo finished work.

    ``config`` and ``overrides`` are what the settings were read from, for a step that starts others.
    """

    settings: Settings
    run: RunDirectory
    reporter: Reporter
    force: bool
    config: Path | None = None
    overrides: tuple[str, ...] = ()


Function = TypeVar("Function", bound=Callable[..., Any])


def run_option(description: str) -> Callable[[Function], Function]:
    """The option --run, given to the function as ``run_directory``."""
    return click.option(
        "--run",
        "run_directory",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("runs/default"),
        show_default=True,
        help=description,
    )


def settings_options(function: Function) -> Function:
    """The options --config and --set, given to the function as ``config`` and ``overrides`` for ``load_settings``."""
    config = click.option(
        "--config", type=click.Path(dir_okay=False, path_type=Path), help="TOML file with settings (see configs/)."
    )
    overrides = click.option(
        "--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override one setting; may be repeated."
    )
    return config(overrides(function))


def step_command(name: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Declare a step: a click command whose function gets a Step first.

    The shared options are --run, --config, --set, --json and --force.
    """

    def declare(function: Callable[..., Any]) -> click.Command:
        @click.command(name)
        @run_option("Directory that holds every artefact of this run.")
        @settings_options
        @click.option("--json", "as_json", is_flag=True, help="Report progress as JSON lines even on a terminal.")
        @click.option("--force", is_flag=True, help="Do the step again even if its result is up to date.")
        @functools.wraps(function)
        def command(
            run_directory: Path, config: Path | None, overrides: tuple[str, ...], as_json: bool, force: bool, **options: Any
        ) -> Any:
            settings = load_settings(config, overrides)
            reporter = Reporter(as_json=True if as_json else None)
            return function(Step(settings, RunDirectory(run_directory), reporter, force, config, overrides), **options)

        return command

    return declare
