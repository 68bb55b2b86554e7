"""A small shop and a tiny language model, one of each a test file."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import write_tiny_encoder
from tiny_tuning import Shop, write_shop


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return write_shop(tmp_path_factory.mktemp("shop") / "run")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_encoder(tmp_path_factory.mktemp("encoder") / "model")
