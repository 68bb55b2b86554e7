"""The whole step: input files to a finished ``dataset`` artefact."""

from __future__ import annotations

import errno
import json
from pathlib import Path

from llmgr_core.artefacts import Artefact, draft_artefact, open_artefact
from llmgr_core.artefacts.directory import finished_artefact
from llmgr_core.data.fit_report import fit_report
from llmgr_core.data.item_files import write_items
from llmgr_core.data.preparation import filter_and_split, write_split
from llmgr_core.data.raw_input import RawInput
from llmgr_core.data.reading import read_input
from llmgr_core.data.sources import Sources
from llmgr_core.data.text_pass import clean_texts
from llmgr_core.errors import LlmgrError
from llmgr_core.progress import Reporter
from llmgr_core.settings import Settings

# Settings that say where the input is or how to work, not what comes out.
NO_PART_OF_THE_RESULT = {"source", "workers", "chunk_bytes"}


def prepare_dataset(sources: Sources, settings: Settings, path: Path, reporter: Reporter, *, force: bool = False) -> Artefact:
    """Read, check, filter, split, clean, report.

    A run that was cut off goes on after the last stage it finished: reading is one, every few thousand cleaned texts another.

    Args:
        sources: the input files.
        settings: sections [data] and [text] and the seed.
        path: where the artefact goes.
        reporter: progress.
        force: do it again even if ``path`` holds the result of these very files and settings.

    Raises:
        InputError: input that cannot be used.
        LlmgrError: the disk is full.
    """
    try:
        return _prepare(sources, settings, path, reporter, force=force)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "free some space and run the same command again to go on"
            raise LlmgrError(f"the disk is full: {path}.partial cannot be finished", hint) from error
        raise


def _prepare(sources: Sources, settings: Settings, path: Path, reporter: Reporter, *, force: bool) -> Artefact:
    identity = {
        "seed": settings.seed,
        "data": settings.data.model_dump(exclude=NO_PART_OF_THE_RESULT),
        "text": settings.text.shaping(),
        "files": sources.hashes(),
    }
    done = None if force else finished_artefact(path, "dataset", [], identity)
    if done is not None:
        reporter.event("up to date", dataset=str(path), digest=done.digest[:12])
        return done
    with draft_artefact(path, "dataset", [], identity) as draft:
        raw = RawInput(draft.checkpoints / "read")
        if raw.is_complete:
            reporter.event("reading was done before the interruption", items=raw.facts["num_items"])
        else:
            raw = read_input(sources, settings.data, raw.path, reporter)
        reporter.event("filtering and splitting")
        prepared = filter_and_split(raw, settings.data, settings.seed)
        write_split(draft.path, prepared)
        write_items(draft.path, raw, prepared.selection)
        clean_texts(draft.path, draft.checkpoints, settings.text, settings.data.workers, reporter)
        report = fit_report(draft.path, prepared, raw.facts)
        _write_json(draft.path / "fit_report.json", report)
        _write_json(draft.path / "bad_rows.json", raw.facts["files"])
        draft.details = prepared.protocol | {"fit_report": report, "files": raw.facts["files"]}
    reporter.event("prepared", dataset=str(path), **prepared.protocol)
    return open_artefact(path, "dataset")


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
