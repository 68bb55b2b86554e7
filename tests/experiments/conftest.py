"""A small run: its data and its backbone."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_runs import SMALL, invoke, write_data


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("experiments")
    data = write_data(root / "data")
    run = root / "run"
    invoke("prepare", "--run", str(run), "--json", "--set", f"data.source={data}")
    invoke("pretrain", "--run", str(run), "--json", *SMALL)
    return run
