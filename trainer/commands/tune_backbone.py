"""``llmgr tune-backbone``: the best settings of an ID-only backbone, by search on validation."""

from __future__ import annotations

import difflib
import json
import shutil
from pathlib import Path
from typing import get_args

import click

from llmgr_core.artefacts import open_artefact
from llmgr_core.command_line.step import Step, step_command
from llmgr_core.errors import InputError
from llmgr_core.settings.encoder import EncoderName
from trainer.sweep.directory import SweepDirectory

MODELS: tuple[str, ...] = get_args(EncoderName)


def known_model(context: click.Context, parameter: click.Parameter, name: str | None) -> str | None:
    """The name itself.

    Raises:
        click.BadParameter: no encoder has it; the message names the nearest one.
    """
    if name is None or name in MODELS:
        return name
    near = difflib.get_close_matches(name.lower().replace("-", ""), MODELS, n=1)
    guess = f"did you mean {near[0]}? " if near else ""
    raise click.BadParameter(f"no encoder is called {name!r}; {guess}There are {', '.join(MODELS)}.")


@step_command("tune-backbone")
@click.option("--model", metavar="NAME", callback=known_model, help=f"Encoder to tune: {', '.join(MODELS)}.")
@click.option("--trials", type=click.IntRange(min=1), help="Trials in all, those of earlier runs included.  [sweep.trials]")
@click.option(
    "--collect",
    "collected",
    metavar="OUT.json",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the log of every sweep in RUN into one file.",
)
@click.option(
    "--configs",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Copy the best settings of every sweep in RUN to DIR/MODEL.toml.",
)
def command(step: Step, model: str | None, trials: int | None, collected: Path | None, configs: Path | None) -> None:
    """Search the settings of a backbone, each trial a whole pre-training, chosen on validation NDCG@20 alone.

    Reads RUN/dataset, its test examples excepted; writes RUN/sweeps/NAME: study.jsonl (the study), trials.json (every trial),
    best.toml (for --config) and best (the best model, an artefact like RUN/backbone). The first trial has the settings
    as given. Run it again to go on where it was cut off, and with more --trials to search on.

    \b
    llmgr tune-backbone --run RUN --model sasrec --trials 20
    llmgr tune-backbone --run RUN --collect sweeps.json --configs configs/backbones
    """
    if model is None and collected is None and configs is None:
        raise click.UsageError(f"name an encoder with --model ({', '.join(MODELS)}), or --collect or --configs what was found")
    if model is not None:
        _sweep(step, model, trials or step.settings.sweep.trials)
    if collected is not None:
        _collect(step, collected)
    if configs is not None:
        from trainer.sweep.collect import copy_best_settings

        copies = copy_best_settings(step.run.root, configs)
        click.echo(json.dumps({"configs": [str(path) for path in copies]}))


def _sweep(step: Step, model: str, trials: int) -> None:
    artefact = open_artefact(step.run.dataset, "dataset")
    import torch

    from llmgr_core.data import Dataset

    try:
        from trainer.sweep.sweep import Sweep, summary
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise InputError("a sweep needs optuna, which is not installed", "pip install 'llmgr[sweep]'") from None
    if step.settings.threads:
        torch.set_num_threads(step.settings.threads)
    places = SweepDirectory.of(step.run.root, model)
    with places.writing():
        if step.force and places.root.exists():
            shutil.rmtree(places.root)
        sweep = Sweep(model, Dataset.open(artefact), step.settings, places, step.reporter)
        if not sweep.run(trials):
            step.reporter.event("up to date", step="tune-backbone", path=str(places.root))
        click.echo(json.dumps(summary(model, places, sweep.best(), sweep.study.finished)))


def _collect(step: Step, path: Path) -> None:
    from llmgr_core.data import Dataset
    from llmgr_core.evaluation.results import write_results
    from trainer.sweep.collect import collect

    dataset = Dataset.open(open_artefact(step.run.dataset, "dataset"))
    found = collect(step.run.root, dataset, step.settings.seed)
    write_results(path, found)
    click.echo(json.dumps({"collected": str(path), "models": list(found["models"])}))
