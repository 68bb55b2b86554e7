"""Making a small run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from click.testing import CliRunner

from llmgr_core.command_line.main import llmgr

SMALL = ["--set", "threads=1", "--set", "encoder.dimension=8", "--set", "distil.encoder.dimension=8"]
SMALL += ["--set", "encoder.name=srgnn", "--set", "distil.encoder.name=srgnn", "--set", "pretrain.epochs=1"]
SMALL += ["--set", "distil.epochs=1", "--set", "evaluate.resamples=100"]


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(llmgr, [*arguments], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.stdout


def write_data(directory: Path, items: int = 20, sessions: int = 90, words: tuple[str, ...] = ()) -> Path:
    """Sessions that run round a circle of items; titles are numbered, or pairs of words."""
    directory.mkdir(parents=True)
    starts = np.random.default_rng(0).integers(0, items, size=sessions)
    titles = [f"{one} {other}" for one in words for other in words if one != other] or [
        f"thing number {n}" for n in range(items)
    ]
    catalogue = [{"item_id": f"id-{n}", "title": titles[n]} for n in range(items)]
    clicks = [
        {
            "session_id": str(n),
            "items": [f"id-{(start + k) % items}" for k in range(6)],
            "timestamps": [n + k for k in range(6)],
        }
        for n, start in enumerate(starts)
    ]
    for name, rows in (("items", catalogue), ("sessions", clicks)):
        (directory / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return directory
