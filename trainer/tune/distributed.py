"""What each process runs under DeepSpeed's launcher: ``deepspeed --module trainer.tune.distributed --plan FILE``."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmgr_core.errors import LlmgrError


@dataclass(frozen=True)
class Plan:
    """What to tune, as the starting process wrote it.

    Attributes:
        dataset, backbone: artefact directories.
        directory, checkpoints: where to write.
        settings: all sections.
        deepspeed: DeepSpeed's configuration, checked.
        as_json: progress as JSON lines.
        curves: where event files for TensorBoard go; None writes none.
        result: file for details and metrics.
        rendezvous: file by which the processes find each other; not there yet. A port could be taken by another program between
            its choice and its use.
    """

    dataset: str
    backbone: str
    directory: str
    checkpoints: str
    settings: dict[str, Any]
    deepspeed: dict[str, Any]
    as_json: bool
    curves: str | None
    result: str
    rendezvous: str

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=2), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Plan:
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def tune_here(plan: Plan) -> None:
    """This process's part of a tuning run."""
    import os

    import torch

    from llmgr_core.artefacts import open_artefact
    from llmgr_core.data import Dataset
    from llmgr_core.encoders import Backbone
    from llmgr_core.progress import Reporter
    from llmgr_core.settings import Settings
    from trainer.tune.two_stages import TwoStageTuning
    from trainer.tune.zero import ZeroProcesses

    settings = Settings.model_validate(plan.settings)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    processes = ZeroProcesses(plan.deepspeed, Path(plan.rendezvous))
    # Only the first process speaks; the others' lines would say the same again.
    if not processes.first:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - open until the process ends
    details, metrics = TwoStageTuning(
        Dataset.open(open_artefact(Path(plan.dataset), "dataset")),
        Backbone.load(open_artefact(Path(plan.backbone), "backbone")),
        settings,
        directory=Path(plan.directory),
        checkpoints=Path(plan.checkpoints),
        reporter=Reporter(as_json=plan.as_json or None),
        processes=processes,
        curves=None if plan.curves is None else Path(plan.curves),
    ).run()
    if processes.first:
        result = {"details": {**details, "processes": torch.distributed.get_world_size()}, "metrics": metrics}
        Path(plan.result).write_text(json.dumps(result), encoding="utf-8")
    processes.barrier()
    torch.distributed.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--local_rank", type=int, default=0, help="set by the launcher; unused")
    try:
        tune_here(Plan.read(parser.parse_args().plan))
    except LlmgrError as error:
        print(f"llmgr: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
