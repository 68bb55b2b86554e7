"""Tokens a second, and what share of the machine's peak they are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Pace:
    """Counts the steps of this process; validation, checkpoints and logging are not in its time.

    Attributes:
        peak: operations a second of this machine (``matmul_rate``).
        tokens: positions computed, padding included.
        operations: by the model's formula (``ModelFlops``).
        seconds: that they took.
    """

    peak: float
    tokens: int = 0
    operations: float = 0.0
    seconds: float = 0.0

    def add(self, tokens: int, operations: float, seconds: float) -> None:
        self.tokens += tokens
        self.operations += operations
        self.seconds += seconds

    def figures(self, processes: int = 1) -> dict[str, float]:
        """``tokens_per_second`` of all processes together, ``share_of_peak`` of this one; empty before the first step.

        From a hundred a second on, the speed is a whole number; below, it has three digits, so that it never reads as none.
        """
        if not self.seconds:
            return {}
        speed = self.tokens * processes / self.seconds
        shown = round(speed) if speed >= 100 else float(f"{speed:.3g}")
        return {"tokens_per_second": shown, "share_of_peak": round(self.operations / self.seconds / self.peak, 4)}
