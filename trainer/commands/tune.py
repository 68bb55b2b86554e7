"""``llmgr tune``: two-stage tuning of the language model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from llmgr_core.artefacts import Artefact, draft_artefact, open_artefact
from llmgr_core.artefacts.directory import finished_artefact, lineage_of, step_identity
from llmgr_core.command_line.step import Step, step_command
from llmgr_core.errors import SettingsError
from llmgr_core.settings import Settings
from llmgr_core.settings.tune import TuneSettings

# Settings that change how a run goes on, not what it arrives at.
INCIDENTAL = {"checkpoint_steps", "gradient_checkpointing", "tensorboard"}
HOST = {"device", "batch_tokens"}
# At its default, each leaves the model as it was before there was a choice.
CHOICES = ("order", "projection", "stage1_texts", "stage2_candidates")
# Without patience, neither these nor patience itself mean anything.
VALIDATION = {"patience", "validation_steps", "validation_examples"}


@step_command("tune")
@click.option(
    "--deepspeed",
    "deepspeed_config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Train under DeepSpeed's launcher with this JSON configuration (see configs/deepspeed-zero2.json).",
)
@click.option("--processes", type=click.IntRange(1, 1024), help="Processes of --deepspeed; by default one a GPU.")
@click.option("--tensorboard", is_flag=True, help="Also write curves to RUN/tensorboard.  [tune.tensorboard]")
@click.option("--dry-run", is_flag=True, help="Measure a step of each stage, print what the run would take, and end.")
def command(step: Step, deepspeed_config: Path | None, processes: int | None, tensorboard: bool, dry_run: bool) -> None:
    """Tune the language model in two stages: align text with items, then learn what follows what.

    Reads RUN/dataset and RUN/backbone, writes RUN/tuned: adapter/ (PEFT), bridge.safetensors, engine.json and log.jsonl.
    Run it again to go on where it was cut off.

    --dry-run loads model and data as the run would and prints parameters, memory, tokens and minutes: a table, or with --json
    (and where standard error is no terminal) one JSON object. It neither reads nor writes RUN/tuned.
    """
    if processes is not None and deepspeed_config is None:
        raise click.UsageError("--processes is of --deepspeed: without a configuration of it, one process tunes")
    from llmgr_core.data import Dataset
    from llmgr_core.encoders import Backbone

    path = step.run.tuned
    inputs = [open_artefact(step.run.dataset, "dataset"), open_artefact(step.run.backbone, "backbone")]
    settings = shaping_settings(step.settings)
    if not dry_run and not step.force and (done := finished_artefact(path, "tuned", inputs, settings)):
        step.reporter.event("up to date", step="tune", path=str(path))
        click.echo(json.dumps({"tuned": str(path), **done.manifest.metrics}))
        return

    if Dataset.open(inputs[0]).cleaner_state["settings"].get("brands", "own") != "own":
        raise SettingsError(
            "text.brands=anonymised is a control of untuned vectors: prompts of tuning show titles as their owners wrote them",
            "take the ranker's variant frozen-text, which needs no tuning",
        )
    for one in inputs:
        one.verify()

    import torch

    from trainer.tune.two_stages import TwoStageTuning

    if step.settings.threads:
        torch.set_num_threads(step.settings.threads)
    if dry_run:
        _dry_run(step, inputs, deepspeed_config, processes)
        return
    curves = None
    if tensorboard or step.settings.tune.tensorboard:
        curves = _curves(step, step_identity("tuned", lineage_of(inputs), settings))
    with draft_artefact(path, "tuned", inputs, settings) as draft:
        if deepspeed_config is None:
            details, metrics = TwoStageTuning(
                Dataset.open(inputs[0]),
                Backbone.load(inputs[1]),
                step.settings,
                directory=draft.path,
                checkpoints=draft.checkpoints,
                reporter=step.reporter,
                curves=curves,
            ).run()
        else:
            from trainer.tune.launch import tune_with_deepspeed

            details, metrics = tune_with_deepspeed(step, draft, deepspeed_config, processes, curves)
        draft.details.update(details)
        draft.metrics.update(metrics)
    click.echo(json.dumps({"tuned": str(path), **metrics}))


def _curves(step: Step, identity: str) -> Path:
    """Where the event files of this very tuning go: runs with other settings stand beside it in TensorBoard.

    Raises:
        SettingsError: TensorBoard is not installed.
    """
    from trainer.tune.scalars import require_tensorboard

    require_tensorboard()
    root = step.run.root / "tensorboard"
    step.reporter.event("curves", see=f"tensorboard --logdir {root}")
    return root / f"tune-{identity[:8]}"


def _dry_run(step: Step, inputs: list[Artefact], deepspeed_config: Path | None, processes: int | None) -> None:
    from rich.console import Console

    from llmgr_core.data import Dataset
    from llmgr_core.encoders import Backbone
    from trainer.tune.dry_run import Layout, dry_run
    from trainer.tune.dry_run_table import dry_run_table

    layout = Layout()
    if deepspeed_config is not None:
        from trainer.tune.launch import read_config, usual_processes

        layout = Layout(processes or usual_processes(), read_config(deepspeed_config))
    found = dry_run(Dataset.open(inputs[0]), Backbone.load(inputs[1]), step.settings, step.reporter, layout)
    if step.reporter.as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        Console().print(dry_run_table(found))


def shaping_settings(settings: Settings) -> dict[str, Any]:
    """The settings that determine the tuned model."""
    tune, usual = settings.tune, TuneSettings()
    unused = {name for name in CHOICES if getattr(tune, name) == getattr(usual, name)}
    unused |= set() if tune.patience else VALIDATION
    return {
        "seed": settings.seed,
        "engine": settings.engine.model_dump(exclude=HOST),
        "tune": tune.model_dump(exclude=INCIDENTAL | unused),
    }
