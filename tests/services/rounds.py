"""Tests that are repeated in their long form: each round with fixtures of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest

Test = TypeVar("Test", bound=Callable[..., object])


def rounds(count: int) -> Callable[[Test], Test]:
    """Run a test once in `make test`, and ``count`` times in `make test-all`."""
    again = [pytest.param(number, marks=pytest.mark.slow, id=f"again_{number}") for number in range(1, count)]
    cases = [pytest.param(0, id="once"), *again]

    def mark(test: Test) -> Test:
        pytest.mark.usefixtures("round_number")(test)
        pytest.mark.parametrize("round_number", cases)(test)
        return test

    return mark
