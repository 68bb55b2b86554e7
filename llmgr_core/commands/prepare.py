"""``llmgr prepare``: from input files to a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from llmgr_core.command_line.step import Step, step_command

if TYPE_CHECKING:
    from llmgr_core.data.sources import Sources

INPUT_FILE = click.Path(dir_okay=False, path_type=Path)


@step_command("prepare")
@click.option("--items", type=INPUT_FILE, help="Catalogue: JSONL, CSV, TSV, Parquet or RecBole .item (.gz allowed).")
@click.option("--sessions", type=INPUT_FILE, help="Sessions or single clicks: JSONL, CSV, TSV, Parquet or RecBole .inter.")
@click.option("--test", type=INPUT_FILE, help="A test file of your own: prefix and target in each row.")
@click.option("--data", metavar="NAME|DIR", help="A data set fetched by `llmgr data`, or a directory with the files.")
@click.option(
    "--show-text", type=click.IntRange(min=1), metavar="N", help="Show N item texts before and after cleaning, and stop there."
)
def command(
    step: Step, *, items: Path | None, sessions: Path | None, test: Path | None, data: str | None, show_text: int | None
) -> None:
    """Read, check, filter and split a click log and its catalogue, clean the texts, and report how well LLMGR suits them."""
    if show_text is not None:
        from llmgr_core.data.text_samples import text_samples

        catalogue = items or _sources(step, items=items, sessions=sessions, test=test, data=data).items
        for sample in text_samples(catalogue, step.settings, show_text, step.reporter):
            click.echo(sample)
        return
    from llmgr_core.data.dataset import Dataset
    from llmgr_core.data.fit_report import table
    from llmgr_core.data.prepare_dataset import prepare_dataset

    artefact = prepare_dataset(
        _sources(step, items=items, sessions=sessions, test=test, data=data),
        step.settings,
        step.run.dataset,
        step.reporter,
        force=step.force,
    )
    dataset = Dataset.open(artefact)
    click.echo(table(dataset.fit_report))


def _sources(step: Step, *, items: Path | None, sessions: Path | None, test: Path | None, data: str | None) -> Sources:
    from llmgr_core.data.sources import Sources
    from llmgr_core.downloads import data_directory
    from llmgr_core.errors import InputError

    if data and (items or sessions or test):
        raise InputError("--data names all files at once", "leave away --data, or --items, --sessions and --test")
    if items or sessions or test:
        if sessions is None:
            raise InputError("no session file", "name it with --sessions")
        return Sources.of_files(items, sessions, test)
    named = data or step.settings.data.source
    if not named:
        raise InputError("no input is named", "llmgr prepare --items FILE --sessions FILE, or llmgr prepare --data NAME")
    as_path = Path(named).expanduser()
    return Sources.of_directory(as_path if as_path.is_dir() else data_directory(named))
