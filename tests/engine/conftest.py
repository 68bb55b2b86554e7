"""Engines with tiny random models."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import write_tiny_causal, write_tiny_encoder


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_encoder(tmp_path_factory.mktemp("models") / "encoder")


@pytest.fixture(scope="session")
def tiny_causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_causal(tmp_path_factory.mktemp("models") / "causal")


@pytest.fixture(scope="session", params=["encoder", "causal"])
def tiny_model(request: pytest.FixtureRequest, tiny_encoder: Path, tiny_causal: Path) -> Path:
    """Each of the two kinds of model in turn."""
    return tiny_encoder if request.param == "encoder" else tiny_causal
