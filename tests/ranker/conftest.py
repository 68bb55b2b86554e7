"""A small ranker with random weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import stored_ranker

from llmgr_core.ranker.stored import StoredRanker


@pytest.fixture
def make_stored() -> Callable[..., StoredRanker]:
    return stored_ranker.make_stored
