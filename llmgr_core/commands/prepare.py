"""``llmgr prepare``: from input files to a data set."""

from __future__ import annotations

from pathlib import Path

import click

from llmgr_core.command_line.step import Step, step_command
from llmgr_core.errors import InputError

INPUT_FILE = click.Path(dir_okay=False, path_type=Path)


@step_command("prepare")
@click.option("--items", type=INPUT_FILE, help="Catalogue: JSONL, CSV, Parquet or RecBole .item (.gz allowed).")
@click.option("--sessions", type=INPUT_FILE, help="Sessions or single clicks: JSONL, CSV, Parquet or RecBole .inter.")
@click.option("--test", type=INPUT_FILE, help="A test file of your own: prefix and target in each row.")
@click.option("--data", metavar="NAME|DIR", help="A data set fetched by `llmgr data`, or a directory with the files.")
def command(step: Step, items: Path | None, sessions: Path | None, test: Path | None, data: str | None) -> None:
    """Read, check, filter and split a click log and its catalogue; clean the texts; report how well LLMGR suits the data."""
    from llmgr_core.artefacts import draft_artefact, open_artefact
    from llmgr_core.artefacts.directory import finished_artefact
    from llmgr_core.data.preparation import filter_and_split, write_items, write_split
    from llmgr_core.data.reading import read_input
    from llmgr_core.data.sources import Sources
    from llmgr_core.data.text_pass import clean_texts
    from llmgr_core.downloads import data_directory

    named = data or step.settings.data.source
    if sessions is not None:
        sources = Sources.of_files(items, sessions, test)
    elif named:
        directory = Path(named) if Path(named).is_dir() else data_directory(named)
        sources = Sources.of_directory(directory)
    else:
        raise InputError("no input named", "llmgr prepare --items FILE --sessions FILE, or --data NAME")
    settings = {
        "seed": step.settings.seed,
        "data": step.settings.data.model_dump(exclude={"source", "workers", "chunk_bytes"}),
        "text": step.settings.text.model_dump(),
        "files": sources.hashes(),
    }
    path = step.run.dataset
    if not step.force and finished_artefact(path, "dataset", [], settings):
        step.reporter.event("up to date", dataset=str(path))
        return
    with draft_artefact(path, "dataset", [], settings) as draft:
        raw = read_input(sources, step.settings.data, draft.checkpoints / "read")
        selection, split, protocol = filter_and_split(raw, step.settings.data, step.settings.seed)
        counts = write_split(draft.path, split, protocol)
        write_items(draft.path, raw, selection)
        import numpy as np

        from llmgr_core.data.dataset import write_array

        write_array(draft.path, "heldout_items.npy", np.zeros(len(counts), dtype=np.bool_))
        clean_texts(draft.path, step.settings.text)
        (draft.path / "fit_report.json").write_text("{}\n")
        draft.details = protocol
    step.reporter.event("prepared", dataset=str(path), digest=open_artefact(path, "dataset").digest[:12], **protocol)
