"""Where the artefacts of one run stand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunDirectory:
    """The places under one ``--run`` directory; every step reads from and writes to these."""

    root: Path

    @property
    def dataset(self) -> Path:
        return self.root / "dataset"

    @property
    def backbone(self) -> Path:
        return self.root / "backbone"

    @property
    def tuned(self) -> Path:
        return self.root / "tuned"

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def bundle(self) -> Path:
        return self.root / "bundle"

    @property
    def evaluation(self) -> Path:
        return self.root / "evaluation"

    @property
    def experiments(self) -> Path:
        return self.root / "experiments"

    @property
    def teacher_ranker(self) -> Path:
        """Ranker that a fused one learns from where it learns from its like."""
        return self.root / "ranker-teacher"

    def ranker(self, variant: str = "fused") -> Path:
        """Directory of an online ranker: "fused" (IDs and tuned text), "id-only" or "frozen-text"."""
        return self.root / ("ranker" if variant == "fused" else f"ranker-{variant}")
