"""``llmgr pretrain``: the ID-only backbone."""

from __future__ import annotations

import json
from typing import Any

import click

from llmgr_core.artefacts import draft_artefact, open_artefact
from llmgr_core.artefacts.directory import finished_artefact
from llmgr_core.command_line.step import Step, step_command
from llmgr_core.settings import Settings

# Settings that change how a run goes on, not what it arrives at.
INCIDENTAL = {"checkpoint_minutes", "device"}


@step_command("pretrain")
def command(step: Step) -> None:
    """Pre-train the graph encoder and its ID table on every prefix of the training sessions.

    Reads RUN/dataset, writes RUN/backbone: backbone.safetensors, encoder.json and log.jsonl.
    """
    from llmgr_core.data import Dataset

    path = step.run.backbone
    inputs = [open_artefact(step.run.dataset, "dataset")]
    settings = shaping_settings(step.settings)
    if not step.force and (done := finished_artefact(path, "backbone", inputs, settings)):
        step.reporter.event("up to date", step="pretrain", path=str(path))
        click.echo(json.dumps({"backbone": str(path), "validation": done.manifest.metrics.get("validation", {})}))
        return

    for one in inputs:
        one.verify()

    import torch

    from trainer.pretrain import Pretraining

    if step.settings.threads:
        torch.set_num_threads(step.settings.threads)
    dataset = Dataset.open(inputs[0])
    with draft_artefact(path, "backbone", inputs, settings) as draft:
        outcome = Pretraining(
            dataset.train,
            dataset.validation,
            dataset.num_items,
            encoder=step.settings.encoder,
            settings=step.settings.pretrain,
            seed=step.settings.seed,
            directory=draft.path,
            checkpoints=draft.checkpoints,
            reporter=step.reporter,
        ).run()
        outcome.model.save(draft.path)
        parameters = sum(parameter.numel() for parameter in outcome.model.parameters())
        draft.details.update(num_items=dataset.num_items, dimension=step.settings.encoder.dimension, parameters=parameters)
        draft.metrics.update(outcome.metrics())
    click.echo(json.dumps({"backbone": str(path), "epochs": outcome.epochs, "validation": outcome.validation}))


def shaping_settings(settings: Settings) -> dict[str, Any]:
    """The settings that determine the backbone."""
    return {
        "seed": settings.seed,
        "encoder": settings.encoder.model_dump(),
        "pretrain": settings.pretrain.model_dump(exclude=INCIDENTAL),
    }
