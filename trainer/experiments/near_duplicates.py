"""The measure "near-duplicates": an experiment's rows by how close the target's text is to that of a click."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmgr_core.data import Dataset
from llmgr_core.evaluation import PairedBootstrap
from llmgr_core.evaluation.near_duplicates import (
    CLOSE,
    NEAR_DUPLICATE,
    Members,
    groups_by_closeness,
    nearest_click,
    share_of_gain,
)
from llmgr_core.sessions import Examples
from llmgr_core.settings import Settings
from trainer.distil.inputs import encoder_fingerprint, read_text_vectors
from trainer.experiments.outcome import RowRanks, compare_rows_in_groups, compared_pairs

RULE = "largest cosine, by text vectors of the untuned language model, of the target to a click of the prefix"


def closeness_groups(settings: Settings, dataset: Dataset, store: Path, splits: Mapping[str, Examples]) -> dict[str, Members]:
    """The groups of each split's examples.

    Args:
        settings: its engine is the model that reads.
        dataset: the items.
        store: holds their vectors.
        splits: examples by name.

    Raises:
        ArtefactError, StoreError: the store lacks vectors of the untuned model.
    """
    text = read_text_vectors(store, dataset, encoder_fingerprint(settings, dataset, None))
    return {
        split: groups_by_closeness(nearest_click(examples, text.vectors, text.present)) for split, examples in splits.items()
    }


def near_duplicates(
    splits: Mapping[str, list[RowRanks]], groups: Mapping[str, Members], bootstrap: PairedBootstrap
) -> dict[str, Any]:
    """Levels and differences of every row in each group, and which share of each difference falls on it.

    Returns:
        ``rule``, ``thresholds`` and ``splits``: by split what ``compare_rows_in_groups`` gives, and ``share_of_gain`` by row.
    """
    return {
        "rule": RULE,
        "thresholds": {"close": CLOSE, "near-duplicate": NEAR_DUPLICATE},
        "splits": {
            split: {
                **compare_rows_in_groups(rows, groups[split], bootstrap),
                "share_of_gain": {
                    row.name: share_of_gain(mine, theirs, groups[split], bootstrap)
                    for row, _, mine, theirs in compared_pairs(rows)
                },
            }
            for split, rows in splits.items()
        },
    }
