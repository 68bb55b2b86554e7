"""A run directory whose items have text and of whom some are held out, small enough to make in a test."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from click.testing import CliRunner
from tiny_models import write_tiny_encoder

from llmgr_core.command_line.main import llmgr

WORDS = ("lipstick", "cream", "brush", "comb", "soap", "towel", "mirror", "powder", "gel", "oil", "wax", "lotion")
COLOURS = ("red", "blue", "green")
ITEMS = len(WORDS) * len(COLOURS)
OPTIONS = [
    *("threads=1", "data.workers=1", "data.heldout_share=0.2", "encoder.dimension=8", "pretrain.epochs=1"),
    *("distil.encoder.dimension=8", "distil.encoder.name=srgnn", "distil.epochs=2", "distil.text_rank=8"),
]


def make_text_run(root: Path) -> Path:
    """Data set, backbone and untuned text vectors, in root / "run"; the language model stands in root / "model"."""
    rng = np.random.default_rng(0)
    items = [
        {"item_id": f"id-{n}", "title": f"{COLOURS[n % 3]} {WORDS[n // 3]}", "brand": WORDS[n % len(WORDS)]}
        for n in range(ITEMS)
    ]
    sessions = [
        {"session_id": str(n), "items": [f"id-{(start + step) % ITEMS}" for step in range(7)]}
        for n, start in enumerate(rng.integers(0, ITEMS, size=150))
    ]
    data = root / "data"
    data.mkdir()
    for name, rows in (("items", items), ("sessions", sessions)):
        (data / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = write_tiny_encoder(root / "model")
    run = root / "run"
    command(run, "prepare", f"data.source={data}", f"engine.model={model}")
    command(run, "pretrain", f"engine.model={model}")
    command(run, "embed", f"engine.model={model}", more=("--untuned",))
    return run


def command(run: Path, step: str, *overrides: str, more: tuple[str, ...] = ()) -> str:
    """What a step reported."""
    settings = [word for one in (*OPTIONS, *overrides) for word in ("--set", one)]
    result = CliRunner().invoke(llmgr, [step, "--run", str(run), "--json", *settings, *more], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.stderr
