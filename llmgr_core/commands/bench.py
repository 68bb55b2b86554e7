"""``llmgr bench``: benchmarks of the installed packages, found through the entry-point group ``llmgr.benchmarks``."""

from __future__ import annotations

from importlib.metadata import entry_points

import click

GROUP = "llmgr.benchmarks"


class BenchmarkGroup(click.Group):
    """Subcommands named by entry points; each is imported only when it is asked for."""

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted(point.name for point in entry_points(group=GROUP))

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        for point in entry_points(group=GROUP, name=name):
            command = point.load()
            if not isinstance(command, click.Command):
                raise TypeError(f"entry point {name} of {GROUP} is not a click command: {command!r}")
            return command
        return None

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        # The short help of every benchmark would import all of them, with everything they measure.
        rows = [(name, "") for name in self.list_commands(context)]
        if rows:
            with formatter.section("Benchmarks"):
                formatter.write_dl(rows)


@click.group("bench", cls=BenchmarkGroup)
def command() -> None:
    """Measure one part against its comparison; prints the figures, and writes them as JSON with --out."""
