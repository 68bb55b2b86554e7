"""Results on disk: results.json, and beside it the rank of every single example."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from llmgr_core.errors import ArtefactError
from llmgr_core.evaluation.evaluate import Ranks

RESULTS_NAME = "results.json"
RANKS_FOLDER = "ranks"
COUNTS_SUFFIX = "train-counts"


@dataclass(frozen=True)
class SplitRanks:
    """What all scorers did on one set of examples.

    Attributes:
        train_counts: int64 [n], training clicks of each example's target.
        ranks: by scorer.
    """

    train_counts: npt.NDArray[np.int64]
    ranks: Mapping[str, Ranks]


def write_ranks(directory: Path, splits: Mapping[str, SplitRanks]) -> None:
    """Write ``ranks/SPLIT.SCORER.npy`` (float32 [2, n]: masked, unmasked) and ``ranks/SPLIT.train-counts.npy``."""
    folder = directory / RANKS_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.npy"):
        old.unlink()
    for split, found in splits.items():
        np.save(folder / f"{split}.{COUNTS_SUFFIX}.npy", found.train_counts, allow_pickle=False)
        for name, ranks in found.ranks.items():
            np.save(folder / f"{split}.{name}.npy", np.stack([ranks.masked, ranks.unmasked]), allow_pickle=False)


def write_results(path: Path, results: Mapping[str, Any]) -> None:
    """Write results as JSON, whole or not at all.

    Raises:
        ArtefactError: nothing can be written there.
    """
    temporary = path.with_suffix(".new")
    text = json.dumps(results, indent=2, ensure_ascii=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise ArtefactError(f"{path} cannot be written: {error.strerror}", "check the path, and the room on the disk") from None


def read_results(directory: Path) -> tuple[dict[str, Any], dict[str, SplitRanks]]:
    """The results of an earlier evaluation, and its ranks.

    Raises:
        ArtefactError: there is none, or files are missing or damaged.
    """
    try:
        results: dict[str, Any] = json.loads((directory / RESULTS_NAME).read_text(encoding="utf-8"))
        splits: dict[str, SplitRanks] = {}
        for split, found in results["splits"].items():
            counts = _load(directory, split, COUNTS_SUFFIX)
            ranks = {}
            for name, facts in found["scorers"].items():
                masked, unmasked = _load(directory, split, name)
                ranks[name] = Ranks(name, masked, unmasked, facts["seconds"], facts.get("calibration_error"))
            splits[split] = SplitRanks(counts, ranks)
    except (OSError, ValueError, KeyError) as error:
        raise ArtefactError(f"{directory} holds no usable results: {error}", "run `llmgr evaluate` there first") from None
    return results, splits


def _load(directory: Path, split: str, name: str) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.load(directory / RANKS_FOLDER / f"{split}.{name}.npy", allow_pickle=False)
    return array
