"""The published data sets come out with their published counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from input_files import Silent

from llmgr_core.data import Dataset
from llmgr_core.data.prepare_dataset import prepare_dataset
from llmgr_core.data.sources import Sources
from llmgr_core.sessions import Examples
from llmgr_core.settings import load_settings

pytestmark = pytest.mark.real_data


def prepared(directory: Path, run: Path, *overrides: str) -> Dataset:
    sources = Sources.of_directory(directory)
    return Dataset.open(prepare_dataset(sources, load_settings(None, overrides), run / "dataset", Silent(as_json=True)))


def test_amazon_beauty(real_data: Path, tmp_path: Path) -> None:
    dataset = prepared(real_data / "amazon-beauty", tmp_path)
    assert dataset.num_items == 12_101
    assert len(dataset.train) == len(dataset.validation) == len(dataset.test) == 22_363
    assert dataset.protocol["num_clicks"] == 198_502
    assert len(Examples.every_prefix(dataset.train)) == 131_413
    assert sum(title is not None for title in dataset.titles) == 12_094
    # targets by training clicks, as research on this split reports them
    counts = dataset.train_counts[dataset.test.targets]
    assert [int(((counts >= low) & (counts <= high)).sum()) for low, high in ((0, 0), (1, 4), (5, 10), (11, 49))] == [
        138,
        4594,
        5726,
        8467,
    ]
    assert dataset.include_seen is False
    assert dataset.fit_report["suits"] == "yes"


def test_diginetica(real_data: Path, tmp_path: Path) -> None:
    dataset = prepared(real_data / "diginetica", tmp_path)
    assert dataset.num_items == 43_097
    assert len(dataset.test) == 60_858
    assert len(dataset.train) + dataset.protocol["num_sessions"] // 10 == 186_670
    assert len(Examples.every_prefix(dataset.train)) + len(dataset.validation) == 719_470
    assert dataset.include_seen is True
    assert dataset.fit_report["suits"] == "no"


def test_diginetica_whole_for_training(real_data: Path, tmp_path: Path) -> None:
    dataset = prepared(real_data / "diginetica", tmp_path, "data.validation_share=0")
    assert len(Examples.every_prefix(dataset.train)) == 719_470
    assert len(dataset.validation) == 0
