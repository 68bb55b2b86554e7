"""Starting a tuning run under DeepSpeed's own launcher."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from llmgr_core.artefacts import Draft
from llmgr_core.command_line.step import Step
from llmgr_core.errors import LlmgrError, SettingsError
from trainer.tune.distributed import Plan
from trainer.tune.zero import checked_config


def tune_with_deepspeed(
    step: Step, draft: Draft, config_file: Path, processes: int | None, curves: Path | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tune in several processes on this machine; details and metrics for the manifest.

    The draft stays in this process: however the others end, the artefact appears whole or not at all.

    Raises:
        LlmgrError: the configuration cannot be used, or a process failed; the same command goes on from the last checkpoint.
    """
    config, count = read_config(config_file), processes or usual_processes()
    result = draft.checkpoints / "result.json"
    result.unlink(missing_ok=True)
    # Nothing is compiled at run time, and no accelerator is guessed: this machine has a GPU or it trains on its CPU.
    environment = {"DS_ACCELERATOR": "cuda" if torch.cuda.is_available() else "cpu", **os.environ}
    command = [sys.executable, "-m", "deepspeed.launcher.runner", "--num_gpus", str(count)]
    command += ["--module", "trainer.tune.distributed", "--plan", str((draft.checkpoints / "plan.json").resolve())]
    # A new one for every start: what an earlier run's processes left in it would be taken for this one's.
    with TemporaryDirectory(prefix="llmgr-tune-") as meeting:
        plan = Plan(
            dataset=str(step.run.dataset.resolve()),
            backbone=str(step.run.backbone.resolve()),
            directory=str(draft.path.resolve()),
            checkpoints=str(draft.checkpoints.resolve()),
            settings=step.settings.model_dump(),
            deepspeed=config,
            as_json=step.reporter.as_json,
            curves=None if curves is None else str(curves.resolve()),
            result=str(result.resolve()),
            rendezvous=str(Path(meeting, "rendezvous").resolve()),
        )
        plan.write(draft.checkpoints / "plan.json")
        # The launcher writes its own progress to standard output, which belongs to results: it goes to standard error (2).
        ended = subprocess.run(command, env=environment, stdout=2, check=False)
    if ended.returncode or not result.is_file():
        raise LlmgrError(
            f"tuning under DeepSpeed ended with status {ended.returncode}",
            "its messages stand above; the same command goes on from the last checkpoint",
        )
    outcome = json.loads(result.read_text(encoding="utf-8"))
    return outcome["details"], outcome["metrics"]


def read_config(config_file: Path) -> dict[str, Any]:
    """DeepSpeed's configuration, checked.

    Raises:
        SettingsError: it cannot be read, or not be used.
    """
    try:
        return checked_config(json.loads(config_file.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{config_file} cannot be read: {error}") from None


def usual_processes() -> int:
    """One a GPU."""
    return max(torch.cuda.device_count(), 1)
