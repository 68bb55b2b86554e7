"""``llmgr bench kernels``: every kernel function against its floor and its baselines, as ``python -m kernels.benchmark`` does.

The package kernels stands on torch alone, so the command of the command line stands here; all options are handed on.
"""

from __future__ import annotations

import click


@click.command("kernels", context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def command(context: click.Context, options: tuple[str, ...]) -> None:
    """Kernel functions: time, bytes, FLOP and memory against floors and baselines (--help lists the options)."""
    from kernels.benchmark.command_line import main

    context.exit(main(list(options), program=context.command_path))


if __name__ == "__main__":
    command()
