"""A small shop whose item texts, IDs and sessions agree, prepared by the project's own steps."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from llmgr_core.artefacts import Artefact, draft_artefact, open_artefact
from llmgr_core.data import Dataset
from llmgr_core.encoders import Backbone, EncoderSettings
from llmgr_core.progress import Reporter
from llmgr_core.settings import Settings
from trainer.commands.tune import shaping_settings
from trainer.tune import two_stages
from trainer.tune.two_stages import TwoStageTuning

COLOURS = ["red", "blue", "green"]
KINDS = ["lipstick", "cream", "brush", "comb", "soap", "towel", "mirror", "powder", "gel", "oil", "wax", "lotion"]
SIZES = ["small", "large"]


@dataclass(frozen=True)
class Shop:
    """Artefact directories of one run."""

    run: Path
    dataset: Artefact
    backbone: Artefact


def write_shop(run: Path, seed: int = 0) -> Shop:
    """72 items, 120 sessions that stay within one kind of product; an untrained backbone with IDs grouped by kind."""
    rng = np.random.default_rng(seed)
    items = [
        {"item_id": f"{kind}-{colour}-{size}", "title": f"{size} {colour} {kind}", "brand": colour, "categories": [[kind]]}
        for kind in KINDS
        for colour in COLOURS
        for size in SIZES
    ]
    names = np.array([item["item_id"] for item in items]).reshape(len(KINDS), -1)
    sessions = [
        {"session_id": str(number), "item_ids": rng.permutation(names[number % len(KINDS)]).tolist()} for number in range(120)
    ]
    run.mkdir(parents=True)
    for name, rows in (("items", items), ("sessions", sessions)):
        (run / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    from llmgr_core.commands.prepare import command

    arguments = ["--run", str(run), "--items", str(run / "items.jsonl"), "--sessions", str(run / "sessions.jsonl"), "--json"]
    outcome = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    dataset = open_artefact(run / "dataset", "dataset")
    torch.manual_seed(seed)
    data = Dataset.open(dataset)
    model = Backbone(data.num_items, EncoderSettings(dimension=8, dropout=0.1))
    kinds = torch.from_numpy(data.category_codes.astype(np.int64))
    model.item_table.data += 0.5 * torch.randn(int(kinds.max()) + 1, 8)[kinds]
    with draft_artefact(run / "backbone", "backbone", [dataset], {"seed": seed}) as draft:
        model.save(draft.path)
    return Shop(run, dataset, open_artefact(run / "backbone", "backbone"))


def tiny_settings(model: Path, **tune: object) -> Settings:
    """Settings for a tiny language model and some twenty steps a stage."""
    values = {
        "lora_rank": 4,
        "text_rows": 8,
        "candidates": 6,
        "heldout_items": 6,
        "stage1_epochs": 1,
        "stage2_epochs": 1,
        "stage2_examples": 96,
        "batch_size": 8,
        "learning_rate": 3e-3,
        "bridge_learning_rate": 3e-3,
        "checkpoint_steps": 3,
        **tune,
    }
    return Settings.model_validate({"seed": 1, "engine": {"model": str(model), "max_tokens": 32}, "tune": values})


class Quiet(Reporter):
    """Keeps events instead of printing them."""

    def __init__(self) -> None:
        super().__init__(as_json=True)
        self.events: dict[str, object] = {}

    def event(self, name, **fields):
        self.events[name] = fields


def tune(shop: Shop, settings: Settings, path: Path) -> tuple[Artefact, TwoStageTuning]:
    """Tune in this process, or go on where an earlier call was cut off."""
    with draft_artefact(path, "tuned", [shop.dataset, shop.backbone], shaping_settings(settings)) as draft:
        tuning = TwoStageTuning(
            Dataset.open(shop.dataset),
            Backbone.load(shop.backbone),
            settings,
            directory=draft.path,
            checkpoints=draft.checkpoints,
            reporter=Quiet(),
        )
        details, metrics = tuning.run()
        draft.details.update(details)
        draft.metrics.update(metrics)
    return open_artefact(path, "tuned"), tuning


def losses(path: Path) -> list[float]:
    """Of every step that a tuned model's log tells of."""
    lines = [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def fall_over_after(place: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Break tunings off right after their checkpoint at this stage and step, until the patch is undone."""
    write = two_stages.write_checkpoint

    def write_and_fall_over(directory: Path, position: two_stages.Position, tensors: dict[str, torch.Tensor]) -> None:
        write(directory, position, tensors)
        if (position.stage, position.step) == place:
            raise KeyboardInterrupt

    monkeypatch.setattr(two_stages, "write_checkpoint", write_and_fall_over)
