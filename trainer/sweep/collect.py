"""The logs of all sweeps of a run as one JSON file, and their best settings under a directory of configurations."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from llmgr_core.data import Dataset
from llmgr_core.errors import ArtefactError
from llmgr_core.evaluation.protocol import protocol
from trainer.sweep.directory import SweepDirectory

SHARED = ("data", "dataset", "seed", "ranking", "masking", "ties", "buckets")
DIGITS = 6


def collect(run: Path, dataset: Dataset, seed: int) -> dict[str, Any]:
    """Every sweep of a run: budget, bounds, all trials, and where and how each was made.

    Raises:
        ArtefactError: there is none, or one was made on other data or with another seed.
    """
    models = {name: _read(places, dataset, seed) for name, places in _sweeps(run).items()}
    facts = protocol(dataset.protocol, seed=seed, dataset=dataset.digest)
    return {"benchmark": "tune_backbone", "protocol": facts, "models": models}


def copy_best_settings(run: Path, directory: Path) -> list[Path]:
    """Copy best.toml of every sweep to ``directory/MODEL.toml``; returns the copies.

    Raises:
        ArtefactError: there is no sweep, or nothing can be written there.
    """
    sweeps = _sweeps(run)
    copies = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, places in sweeps.items():
            if places.best_settings.is_file():
                copies.append(directory / f"{name}.toml")
                shutil.copyfile(places.best_settings, copies[-1])
    except OSError as error:
        raise ArtefactError(f"{directory} cannot be written to: {error.strerror}", "name another directory") from None
    return copies


def _sweeps(run: Path) -> dict[str, SweepDirectory]:
    sweeps = SweepDirectory.finished(run)
    if not sweeps:
        raise ArtefactError(f"{run} holds no sweep", f"make one first: llmgr tune-backbone --run {run} --model gcsan")
    return sweeps


def _read(places: SweepDirectory, dataset: Dataset, seed: int) -> dict[str, Any]:
    try:
        written: dict[str, Any] = json.loads(places.trials.read_text(encoding="utf-8"))
        made = written.pop("protocol")
        before = (made["dataset"], made["seed"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtefactError(
            f"{places.trials} cannot be read: {error}", "run the sweep again; it writes the file anew"
        ) from None
    for name, found, wanted in zip(("data", "seed"), before, (dataset.digest, seed), strict=True):
        if found != wanted:
            raise ArtefactError(
                f"{places.root} was swept with {name} {found}, not {wanted}", "sweep it again, or give the run's own --config"
            )
    own = {key: value for key, value in made.items() if key not in SHARED}
    rounded: dict[str, Any] = _rounded({**written, "made": own})
    return rounded


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list) else value
