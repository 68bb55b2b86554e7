"""``llmgr settings``: every key that can be set, and what it is now."""

from __future__ import annotations

import json

import click

from llmgr_core.command_line.step import Step, step_command


@step_command("settings")
def command(step: Step) -> None:
    """Print the settings a step would run with, as JSON: defaults, --config and --set together."""
    click.echo(json.dumps(step.settings.model_dump(), indent=2, ensure_ascii=False))
