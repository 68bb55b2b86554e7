"""The ``llmgr`` command itself."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

import click

from llmgr_core import __version__
from llmgr_core.errors import LlmgrError

GROUP = "llmgr.commands"
ORDER = (
    *("data", "model", "prepare", "pretrain", "tune-backbone", "tune", "embed", "distil", "evaluate", "export"),
    *("serve", "rank", "insert", "store", "admin", "explain", "experiment", "report"),
)


class CommandGroup(click.Group):
    """Subcommands named by installed packages; each is imported only when it is asked for."""

    def list_commands(self, context: click.Context) -> list[str]:
        names = {point.name for point in entry_points(group=GROUP)}
        return [name for name in ORDER if name in names] + sorted(names - set(ORDER))

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        for point in entry_points(group=GROUP, name=name):
            command = point.load()
            assert isinstance(command, click.Command)
            return command
        return None


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="llmgr")
def llmgr() -> None:
    """Recommend the next item of a click session: an LLM reads item text offline, a graph network ranks online.

    The steps, in order: prepare, pretrain, tune, embed, distil, evaluate, export, serve. Each reads and writes
    directories under --run, can be repeated at no cost when nothing changed, and goes on where it was cut off.
    """


def main() -> None:
    """Entry point of the console script: errors a person can act on end with a message, not a traceback."""
    try:
        llmgr(standalone_mode=False)
    except LlmgrError as error:
        print(f"llmgr: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        print("llmgr: interrupted; run the same command again to go on", file=sys.stderr)
        sys.exit(130)
