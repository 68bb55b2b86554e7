"""SIGKILL at drawn moments of every stage of training: same curve, same weights, few steps twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killed_runs import Outcome, Processes
from tiny_models import write_tiny_encoder
from tiny_tuning import write_shop

from llmgr_core.artefacts import open_artefact

CHECKPOINT_STEPS = 3
# A step takes a minute here, and a checkpoint is written when more than these have passed.
CHECKPOINT_MINUTES = CHECKPOINT_STEPS - 1
MOST_KILLS, MOST_MOMENTS = 12, 90
SMALL = ["encoder.dimension=8", "encoder.name=srgnn", "pretrain.epochs=2", "pretrain.batch_size=48"]
SMALL += [
    "distil.encoder.dimension=8",
    "distil.encoder.name=srgnn",
    "distil.epochs=2",
    "distil.batch_size=48",
    "distil.text_rank=8",
]
SMALL += ["distil.teacher_examples=40", "distil.teacher_top=5", "transitions.text_neighbours=4", "transitions.text_new_rank=4"]
SMALL += ["tune.lora_rank=2", "tune.text_rows=4", "tune.candidates=4", "tune.heldout_items=6", "tune.batch_size=8"]
SMALL += ["tune.stage1_epochs=1", "tune.stage2_epochs=1", "tune.stage2_examples=64", "engine.max_tokens=24"]
# Best weights and how long none were better outlive a kill too.
SMALL += ["tune.patience=2", "tune.validation_steps=2", "tune.validation_examples=20"]
SMALL += [f"tune.checkpoint_steps={CHECKPOINT_STEPS}", f"pretrain.checkpoint_minutes={CHECKPOINT_MINUTES}"]
SMALL += [f"distil.checkpoint_minutes={CHECKPOINT_MINUTES}", "threads=1", "seed=1"]
SMALL += ["sweep.startup_trials=1", "sweep.pruning=false"]


@dataclass(frozen=True)
class Stage:
    """A command, the artefacts it starts from, and the one it makes."""

    arguments: tuple[str, ...]
    needs: tuple[str, ...]
    makes: str
    kind: str


STAGES = {
    "pretrain": Stage(("pretrain",), ("dataset",), "backbone", "backbone"),
    "tune": Stage(("tune",), ("dataset", "backbone"), "tuned", "tuned"),
    "distil": Stage(("distil",), ("dataset", "backbone", "tuned", "store"), "ranker", "ranker"),
    "tune-backbone": Stage(
        ("tune-backbone", "--model", "gru4rec", "--trials", "2"), ("dataset",), "sweeps/gru4rec/best", "backbone"
    ),
}
BETWEEN = {
    "pretrain": "step backbone.partial 8",  # the first of the second epoch
    "tune": "step stage 2 0",
    "distil": "torn ranker.partial/transitions",
    "tune-backbone": "step 0001 0",
}


@dataclass(frozen=True)
class Shop:
    """Everything that a stage can start from, and how each stage goes when nobody kills it."""

    run: Path
    processes: Processes
    settings: list[str]
    whole: dict[str, Outcome]
    command: Callable[[Stage, Path], list[str]]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    root = tmp_path_factory.mktemp("kills")
    base = write_shop(root / "run").run
    (base / "backbone").rename(root / "backbone")
    settings = [*SMALL, f"engine.model={write_tiny_encoder(root / 'model')}"]

    def command(stage: Stage, run: Path) -> list[str]:
        name, *options = stage.arguments
        return [name, "--run", str(run), *options, "--json", *(word for one in settings for word in ("--set", one))]

    with Processes() as processes:
        whole = {}
        for name, stage in STAGES.items():
            if name == "distil":
                processes.run(command(Stage(("embed",), (), "", ""), base))
            whole[name] = processes.run(command(stage, base))
            assert not whole[name].killed
        yield Shop(base, processes, settings, whole, command)


def start(shop: Shop, stage: Stage, run: Path) -> Path:
    run.mkdir()
    for needed in stage.needs:
        (run / needed).symlink_to(shop.run / needed)
    return run


def kill_and_go_on(shop: Shop, stage: Stage, run: Path, kill_at: Sequence[int | str]) -> list[Outcome]:
    """Kill the stage again and again, then let it come to its end; what each of the processes did."""
    outcomes = []
    for moment in kill_at:
        outcomes.append(shop.processes.run(shop.command(stage, run), moment))
        if not outcomes[-1].killed:
            return outcomes
    return [*outcomes, shop.processes.run(shop.command(stage, run))]


def check(shop: Shop, stage: Stage, name: str, run: Path, outcomes: list[Outcome]) -> None:
    """As if nobody had killed it: every byte of the artefact, the curve of its losses among them, and few steps twice."""
    killed = [(len(one.moments), one.moments[-1:]) for one in outcomes if one.killed]
    whole, found = (open_artefact(root / stage.makes, stage.kind, verify=True) for root in (shop.run, run))
    assert curve(found.path) == curve(whole.path), killed
    assert found.manifest.files == whole.manifest.files, killed
    assert found.digest == whole.digest
    assert timeless(found.manifest.metrics) == pytest.approx(timeless(whole.manifest.metrics)), killed
    assert set(shop.whole[name].steps) == {step for one in outcomes for step in one.steps}
    for number, one in enumerate(outcomes):
        later = {step for other in outcomes[number + 1 :] for step in other.steps}
        assert len(later & set(one.steps)) <= CHECKPOINT_STEPS, (killed, number)
    # What was torn in the cache of the teacher's rankings stays there: another process may be writing it.
    left = [
        path.relative_to(run) for path in run.rglob("*") if path.suffix in {".partial", ".old"} or path.name.startswith(".tmp")
    ]
    assert not [path for path in left if path.parts[0] != "cache"]


def curve(artefact: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (artefact / "log.jsonl").read_text().splitlines()]


def timeless(metrics: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """Figures by dotted name, without those that a clock made."""
    found: dict[str, float] = {}
    for key, value in metrics.items():
        if key.endswith(("_cost", "_seconds", "_per_second", "_share_of_peak")):
            continue
        if isinstance(value, dict):
            found |= timeless(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_killed_at_awkward_moments_ends_as_if_it_had_not_been(shop: Shop, tmp_path: Path, name: str) -> None:
    """At a drawn moment, while a checkpoint is written, between two parts of the stage, while its result is being named."""
    stage = STAGES[name]
    drawn = np.random.default_rng([5, list(STAGES).index(name)]).integers(len(shop.whole[name].moments) // 3)
    run = start(shop, stage, tmp_path / "run")
    partial = f"{Path(stage.makes).name}.partial"
    moments = [int(drawn), "torn checkpoints/", BETWEEN[name], f"remove {partial}/.identity", f"/{partial}"]
    outcomes = kill_and_go_on(shop, stage, run, moments)
    assert [one.killed for one in outcomes] == [True] * 5 + [False]
    check(shop, stage, name, run, outcomes)


@pytest.mark.slow
@pytest.mark.timeout(5400)
@pytest.mark.parametrize("name", STAGES)
def test_a_stage_killed_at_any_moment_ends_as_if_it_had_not_been(shop: Shop, tmp_path: Path, name: str) -> None:
    stage = STAGES[name]
    count = len(shop.whole[name].moments)
    for moment in np.unique(np.linspace(0, count - 1, min(count, MOST_MOMENTS)).round().astype(int)).tolist():
        run = start(shop, stage, tmp_path / str(moment))
        outcomes = kill_and_go_on(shop, stage, run, [moment])
        assert outcomes[0].killed
        check(shop, stage, name, run, outcomes)


@pytest.mark.slow
@pytest.mark.timeout(5400)
@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("seed", range(4))
def test_a_stage_killed_again_and_again_ends_as_if_it_had_not_been(shop: Shop, tmp_path: Path, name: str, seed: int) -> None:
    stage = STAGES[name]
    draw = np.random.default_rng([seed, list(STAGES).index(name)])
    run = start(shop, stage, tmp_path / "run")
    outcomes = kill_and_go_on(shop, stage, run, draw.integers(len(shop.whole[name].moments), size=MOST_KILLS).tolist())
    assert outcomes[0].killed
    check(shop, stage, name, run, outcomes)
