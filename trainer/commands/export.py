"""``llmgr export``: a ranker and all it needs, as one bundle."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from llmgr_core.artefacts import Artefact, draft_artefact, open_artefact
from llmgr_core.artefacts.directory import finished_artefact
from llmgr_core.command_line.step import Step, step_command
from llmgr_core.errors import ArtefactError

if TYPE_CHECKING:
    from llmgr_core.bundle import EngineReference
    from llmgr_core.data import Dataset

VARIANTS = ("fused", "id-only", "frozen-text")


@step_command("export")
@click.option("--variant", type=click.Choice(VARIANTS), default="fused", show_default=True, help="Which ranker of the run.")
def command(step: Step, *, variant: str) -> None:
    """Write RUN/bundle: what a ranking host and an embedding host need, and nothing that could execute code.

    Reads RUN/dataset, RUN/ranker and, where the ranker uses tuned text, RUN/tuned.
    """
    path = step.run.bundle
    dataset_artefact = open_artefact(step.run.dataset, "dataset")
    ranker_artefact = open_artefact(step.run.ranker(variant), "ranker")
    taken_away = ranker_artefact.manifest.settings.get("distil", {}).get("controls")
    if taken_away:
        raise ArtefactError(
            f"{ranker_artefact.path} is a control of an experiment (distil.controls {taken_away}), not a ranker to be served",
            "run `llmgr distil` without distil.controls",
        )
    inputs = [dataset_artefact, ranker_artefact]
    if variant == "fused":
        inputs.append(open_artefact(step.run.tuned, "tuned"))
    settings = {"variant": variant}
    if not step.force and (done := finished_artefact(path, "bundle", inputs, settings)):
        step.reporter.event("up to date", step="export", path=str(path))
        click.echo(json.dumps({"bundle": str(path), "version": done.digest}))
        return

    from llmgr_core.bundle import Bundle, write_bundle
    from llmgr_core.data import Dataset
    from llmgr_core.ranker.stored import StoredRanker

    ranker_artefact.verify()
    dataset = Dataset.open(dataset_artefact)
    ranker = StoredRanker.read(ranker_artefact.path)
    tuned = inputs[2] if variant == "fused" else None
    with draft_artefact(path, "bundle", inputs, settings) as draft:
        engine = _engine(ranker_artefact, dataset, tuned) if ranker.description.text_dimension else None
        write_bundle(
            draft.path,
            ranker,
            dataset.item_ids,
            cleaner_state=dataset.cleaner_state,
            engine=engine,
            adapter=None if tuned is None else tuned.path / "adapter",
            bridge=None if tuned is None else tuned.file("bridge.safetensors"),
        )
        description = ranker.description
        draft.details.update(
            variant=variant,
            num_items=description.num_items,
            dimension=description.encoder.dimension,
            text_dimension=description.text_dimension,
            language_model=None if engine is None else engine.settings["model"],
            language_model_hash=None if engine is None else engine.base_hash,
            prompt_version=None if engine is None else engine.prompt_version,
            fingerprint=description.fingerprint,
            dataset=dataset.digest,
        )
        draft.metrics.update(ranker_artefact.manifest.metrics)
    bundle = Bundle.open(path)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    click.echo(json.dumps({"bundle": str(path), "version": bundle.version, "items": description.num_items, "bytes": size}))


def _engine(ranker: Artefact, dataset: Dataset, tuned: Artefact | None) -> EngineReference:
    """The engine that the ranker's text vectors came from; loading it checks that this machine has the very same."""
    from llmgr_core.bundle import EngineReference
    from llmgr_core.engine import SemanticEngine
    from llmgr_core.engine.prompts import PROMPT_VERSION
    from llmgr_core.settings.engine import EngineSettings
    from llmgr_core.text import TextCleaner

    if tuned is not None:
        engine = SemanticEngine.from_tuned(tuned)
    else:
        engine = SemanticEngine.load(EngineSettings.model_validate(ranker.manifest.settings["engine"]))
    return EngineReference(
        settings=engine.settings.model_dump(),
        base_hash=engine.base_hash,
        adapter_hash=engine.adapter_hash,
        fingerprint=engine.fingerprint(TextCleaner.from_state(dataset.cleaner_state).digest),
        prompt_version=PROMPT_VERSION,
        hidden_size=engine.hidden_size,
    )
