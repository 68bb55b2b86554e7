"""The benchmark of the captured ranking path: every size on a CUDA machine, a plain word elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from benchmarks.graphed_ranking import NOTHING_TO_MEASURE, command, line, measured
from llmgr_core.ranker import RankerRuntime
from llmgr_core.settings.encoder import EncoderSettings


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_machine_without_cuda_says_that_there_is_nothing_to_measure(tmp_path) -> None:
    done = CliRunner().invoke(command, ["--out", str(tmp_path / "figures.json")])
    assert done.exit_code == 0
    assert done.output.strip() == NOTHING_TO_MEASURE
    assert not (tmp_path / "figures.json").exists()


def test_every_size_is_measured_once(make_stored) -> None:
    """On the CPU, where the same is done without capture."""
    stored = make_stored(60, encoder=EncoderSettings(name="srgnn", dimension=16, max_clicks=12))
    vectors = np.random.default_rng(1).normal(size=(60, 12)).astype(np.float16)
    runtime = RankerRuntime(stored.parts("v1", [f"item-{number}" for number in range(60)]), vectors)
    rows = measured(stored, runtime, "cpu", 5)
    assert [(row["clicks"], row["candidates"], row["k"]) for row in rows] == [
        (clicks, candidates, k) for clicks in (8, 16) for candidates, k in ((0, 20), (0, 128), (0, 1000), (32, 20))
    ]
    assert all(row[name]["p50_ms"] > 0 for row in rows for name in ("rank", "run", "host"))
    assert not any("replay" in row for row in rows)
    assert line(rows[0]).startswith("clicks <= 8, lists <= 256, candidates <= 0, k = 20 ")


@pytest.mark.gpu
def test_on_a_gpu_replays_are_timed(tmp_path) -> None:
    done = CliRunner().invoke(command, ["--items", "500", "--repeats", "5", "--out", str(tmp_path / "figures.json")])
    assert done.exit_code == 0, done.output
    assert "replay" in done.output
    assert (tmp_path / "figures.json").exists()
