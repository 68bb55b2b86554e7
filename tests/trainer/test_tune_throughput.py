"""Share of the machine's peak: the formula, the peak, and where both are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import write_tiny_causal
from tiny_tuning import Quiet, Shop, tiny_settings, tune
from torch.utils.flop_counter import FlopCounterMode

from llmgr_core.data import Dataset
from llmgr_core.encoders import Backbone
from trainer.tune.matmul_rate import matmul_rate
from trainer.tune.model_flops import ModelFlops
from trainer.tune.optimization import choose_trainable
from trainer.tune.pace import Pace
from trainer.tune.two_stages import TwoStageTuning


class Bars(Quiet):
    """Keeps what stood beside the bars."""

    def event(self, name, **fields):
        if name == "progress":
            self.events.setdefault("bars", []).append(fields)
        else:
            super().event(name, **fields)


@pytest.mark.parametrize("rank", [4, 0])
@pytest.mark.parametrize("kind", ["encoder", "causal"])
def test_the_formula_counts_the_matrix_products_that_run(
    shop: Shop, encoder: Path, tmp_path: Path, kind: str, rank: int
) -> None:
    """Of a step of stage 1, as torch counts them while they run; bridge and catalogue softmax are few beside them."""
    model = encoder if kind == "encoder" else write_tiny_causal(tmp_path / "causal")
    settings = tiny_settings(model, lora_rank=rank, lora_dropout=0.0)
    dataset = Dataset.open(shop.dataset)
    tuning = TwoStageTuning(
        dataset, Backbone.load(shop.backbone), settings, directory=tmp_path, checkpoints=tmp_path, reporter=Quiet()
    )
    tuning.engine.language_model.transformer.set_attn_implementation("eager")
    choose_trainable(tuning.model, 1)
    work = tuning.examples.items_to_learn(np.ones((dataset.num_items, 32), dtype=np.float32)).work
    batch = work.build(work.steps[0], np.random.default_rng(0))
    counter = FlopCounterMode(display=False)
    with counter:
        tuning.model(batch).loss.backward()
    ran = sum(counter.get_flop_counts()["Global"].values())
    assert ModelFlops.of(tuning.engine.language_model).count(batch) == pytest.approx(ran, rel=0.15)


def test_the_peak_is_above_what_a_tuning_reaches_and_draws_nothing(shop: Shop, encoder: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    rate = matmul_rate(torch.device("cpu"), torch.float32)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), after)
    assert rate > 1e8
    metrics = tune(shop, tiny_settings(encoder, stage2_examples=16), tmp_path / "tuned")[0].manifest.metrics
    assert metrics["matmul_flops_per_second"] > 1e8
    for stage in (1, 2):
        assert 0 < metrics[f"stage{stage}_share_of_peak"] < 1
        assert metrics[f"stage{stage}_tokens_per_second"] > 0
        cost = metrics[f"stage{stage}_cost"]
        assert 0 < cost["share_of_peak"] < 1
        speed = cost["share_of_peak"] * metrics["matmul_flops_per_second"] / cost["flops_per_token"]
        assert speed == pytest.approx(cost["tokens_per_second"], rel=0.5)


def test_progress_tells_the_share_beside_tokens_a_second(shop: Shop, encoder: Path, tmp_path: Path) -> None:
    reporter = Bars()
    TwoStageTuning(
        Dataset.open(shop.dataset),
        Backbone.load(shop.backbone),
        tiny_settings(encoder, stage1_epochs=0, stage2_examples=16),
        directory=tmp_path,
        checkpoints=tmp_path,
        reporter=reporter,
    ).run()
    last = [bar for bar in reporter.events["bars"] if bar["step"] == "stage 2"][-1]
    assert 0 < last["share_of_peak"] < 1
    assert last["tokens_per_second"] > 0


def test_pace_is_of_the_steps_alone() -> None:
    pace = Pace(peak=1000.0)
    assert pace.figures() == {}
    pace.add(10, 100.0, 0.5)
    pace.add(30, 300.0, 0.5)
    assert pace.figures() == {"tokens_per_second": 40, "share_of_peak": 0.4}
    assert pace.figures(processes=4)["tokens_per_second"] == 160
    slow = Pace(peak=1000.0)
    slow.add(1, 1.0, 3.0)
    assert slow.figures()["tokens_per_second"] == 0.333
