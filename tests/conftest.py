"""Fixtures that every room's tests may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Tests run on machines that also serve other work: one thread each keeps them fast and repeatable.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Weights come from `llmgr model`, never from a hub in the middle of a test.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")
if not Path("/dev/nvidiactl").exists():
    # Triton decides at import whether its kernels run in the interpreter; compilation is checked in a process of its own.
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Neither the clock nor luck decides: no example may take too long, and every run draws the same ones.
settings.register_profile("repeatable", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("repeatable")


def _home() -> Path:
    return Path(os.environ.get("LLMGR_HOME") or Path.home() / ".cache" / "llmgr")


@pytest.fixture(scope="session")
def minilm() -> Path:
    """Directory of the real all-MiniLM-L6-v2 weights."""
    path = _home() / "models" / "minilm"
    if not path.is_dir():
        pytest.skip("no MiniLM weights: run `llmgr model minilm`")
    return path


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """Directory of the real SmolLM2-135M weights."""
    path = _home() / "models" / "smollm2-135m"
    if not path.is_dir():
        pytest.skip("no SmolLM2 weights: run `llmgr model smollm2-135m`")
    return path


@pytest.fixture(scope="session")
def movielens() -> Path:
    """Directory of MovieLens-100K in the project's own data format."""
    path = _home() / "data" / "movielens-100k"
    if not path.is_dir():
        pytest.skip("no MovieLens data: run `llmgr data movielens-100k`")
    return path


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The directory that LLMGR_DATA names, with amazon-beauty, amazon-scientific and diginetica below it."""
    value = os.environ.get("LLMGR_DATA")
    if not value or not Path(value).is_dir():
        pytest.skip("LLMGR_DATA names no directory of real data sets")
    return Path(value)
