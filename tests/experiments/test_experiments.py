"""Experiments: rows are data, nothing is made twice, what was not run is named."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from small_runs import SMALL, invoke

from llmgr_core.command_line.step import Step
from llmgr_core.errors import InputError, SettingsError
from llmgr_core.progress import Reporter
from llmgr_core.run_directory import RunDirectory
from llmgr_core.settings import load_settings
from trainer.experiments import Conduct, Experiment, find_experiment
from trainer.experiments.definition import FOLDER, as_overrides
from trainer.experiments.links import Links
from trainer.report.result_files import Provenance

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in (ROOT / FOLDER).glob("*.toml"))

TOY = """
title = "Toy"
about = "Two rankers without text."
reference = "plain"
measure = ["calibration", "cost"]

[[row]]
name = "floor"
label = "floor"
scorer = "floor"

[[row]]
name = "backbone"
label = "backbone"
scorer = "backbone"

[[row]]
name = "plain"
label = "plain ranker"
variant = "id-only"

[[row]]
name = "no-transitions"
label = "no transition term"
variant = "id-only"
transitions = false

[[row]]
name = "shuffled"
label = "shuffled | history"
variant = "id-only"
set = { "distil.controls.history" = "shuffled" }

[[row]]
name = "swept"
label = "a sweep nobody ran"
scorer = "backbone"
sweep = "narm"
"""


def experiment(**changes: object) -> Experiment:
    rows = [{"name": "a", "label": "A", "variant": "id-only"}, {"name": "b", "label": "B", "variant": "id-only"}]
    return Experiment.model_validate({"title": "t", "about": "a", "reference": "a", "row": rows, **changes})


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    path = tmp_path / "toy.toml"
    path.write_text(TOY)
    return path


def run_toy(run: Path, toy: Path, *options: str) -> dict:
    return json.loads(invoke("experiment", str(toy), "--run", str(run), "--json", *SMALL, *options).splitlines()[-1])


def test_a_sweep_is_taken_as_it_stands_unless_its_row_sets_something(small_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    sweep = run / "sweeps" / "srgnn"
    shutil.copytree(run / "backbone", sweep / "best")
    (sweep / "best.toml").write_text(
        'seed = 1\n[encoder]\nname = "srgnn"\ndimension = 8\n[pretrain]\nepochs = 1\nbatch_size = 64\n'
    )
    file = tmp_path / "swept.toml"
    row = '[[row]]\nname = "{}"\nlabel = "{}"\nscorer = "backbone"\nsweep = "srgnn"\n{}\n'
    rows = row.format("best", "best", "") + row.format("longer", "longer", 'set = { "pretrain.epochs" = 2, seed = 7 }')
    file.write_text(f'title = "t"\nabout = "a"\n{rows}')
    planned = {
        one["row"]: one for one in map(json.loads, invoke("experiment", str(file), "--run", str(run), "--plan").splitlines())
    }
    assert planned["best"]["steps"] == []
    [step] = planned["longer"]["steps"]
    assert str(sweep / "best.toml") in step
    assert "pretrain.epochs=2" in step
    assert step.index("seed=1") > step.index("seed=7"), "the seed is the experiment's, whatever a row sets"
    run_toy(run, file)
    [made] = (run / "experiments" / "steps").glob("backbone-*/backbone/manifest.json")
    settings = json.loads(made.read_text())["settings"]
    assert (settings["pretrain"]["epochs"], settings["pretrain"]["batch_size"]) == (2, 64)
    file.write_text(f'title = "t"\nabout = "a"\nset = {{ "pretrain.epochs" = 3 }}\n{row.format("best", "best", "")}')
    planned = json.loads(invoke("experiment", str(file), "--run", str(run), "--plan"))
    assert "pretrain.epochs=3" in planned["steps"][0], "what is set for every row is set for this one too"


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_of_the_project_can_be_read_and_its_settings_exist(name: str) -> None:
    stem, found = find_experiment(name)
    assert stem == name
    for row in found.rows:
        load_settings(None, (*as_overrides(found.set), *as_overrides(row.set)))


def test_ablations_hold_the_controls_a_reviewer_asks_for() -> None:
    rows = {row.name for row in find_experiment("ablations")[1].rows}
    wanted = {"no-stage-1", "joint-stages", "no-text", "no-ids", "no-graph", "frozen-text", "permuted-text", "random-text"}
    wanted |= {"shuffled-history", "no-transitions", "ce-only", "backbone-start-pull", "backbone-start-both", "thaw-nothing"}
    wanted |= {"thaw-gnn+ids", "lora-0", "lora-4", "lora-16", "lora-64"}
    wanted |= {"swapped-stages", "shuffled-stage-1", "candidate-head", "projection-frozen", "projection-mlp"}
    wanted |= {"self-teacher", "equal-epochs"}
    assert wanted <= rows


def test_the_table_of_controls_names_rows_that_there_are() -> None:
    page = (ROOT / "docs" / "experiments.md").read_text().partition("## The twelve controls")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([^`]+)`", page))
    rows = {row.name for name in NAMES for row in find_experiment(name)[1].rows}
    assert named - rows <= set(NAMES)
    assert len(re.findall(r"^\| \d+ \|", page, re.MULTILINE)) == 12


def test_from_rows_to_a_result_that_says_what_was_not_run(small_run: Path, toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "toy.json"
    told = run_toy(small_run, toy, "--out", str(out))
    assert told["not_run"] == ["swept"]
    result = json.loads(out.read_text())
    assert Provenance.of(result).missing() == ()
    assert [row["name"] for row in result["rows"]] == ["floor", "backbone", "plain", "no-transitions", "shuffled"]
    assert "holds no result of a sweep; run `llmgr tune-backbone" in result["not_run"][0]["why"]
    test = result["splits"]["test"]
    assert test["references"] == dict.fromkeys(("floor", "backbone", "no-transitions", "shuffled"), "plain")
    masked = {name: test["scorers"][name]["masked"]["all"] for name in test["scorers"]}
    assert masked["plain"]["NDCG@20"] > masked["shuffled"]["NDCG@20"], "sessions run round a circle: order is all there is"
    assert set(result["calibration"]) == {"plain", "shuffled"}
    bins = result["calibration"]["plain"]["test"]["masked"]["bins"]
    assert sum(one["examples"] for one in bins) == test["examples"]["all"]
    plain = next(row for row in result["rows"] if row["name"] == "plain")
    assert plain["cost"]["cpu_seconds"] > 0
    assert plain["cost"]["request_ms"] > 0

    before = {path: path.stat().st_mtime_ns for path in (small_run / "experiments" / "steps").rglob("manifest.json")}
    assert len(before) == 2, "the ranker without the term is the plain one; the backbone is the run's own"
    assert run_toy(small_run, toy, "--collect")["NDCG@20"] == told["NDCG@20"]
    again = {path: path.stat().st_mtime_ns for path in (small_run / "experiments" / "steps").rglob("manifest.json")}
    assert again == before


def test_a_plan_names_the_steps_and_touches_nothing(small_run: Path, toy: Path) -> None:
    before = sorted(small_run.rglob("*"))
    lines = invoke("experiment", str(toy), "--run", str(small_run), "--plan", *SMALL, "--set", "distil.id_dropout=0.3")
    plan = {line["row"]: line for line in map(json.loads, lines.splitlines())}
    assert plan["backbone"]["steps"] == []
    assert len(plan["plain"]["steps"]) == 1
    assert plan["plain"]["steps"][0].startswith("llmgr distil --variant id-only --run ")
    assert plan["no-transitions"]["steps"] == [], "planned one row earlier"
    assert 'distil.controls.history="shuffled"' in plan["shuffled"]["steps"][0]
    assert "holds no result of a sweep" in plan["swept"]["missing"][0]
    assert sorted(small_run.rglob("*")) == before


def test_a_row_that_changes_the_data_makes_its_own_chain(small_run: Path) -> None:
    one = experiment(set={"data.split": "time"})
    links = Links(RunDirectory(small_run), load_settings(None), None, ())
    link = links.of(one, one.rows[0], 1)
    assert link is not None
    assert [step.kind for step in link.pending()] == ["dataset", "backbone", "ranker"]
    assert not any(step.own for step in link.pending())


def test_a_seed_reaches_the_last_training_only(small_run: Path) -> None:
    one = experiment()
    links = Links(RunDirectory(small_run), load_settings(None), None, ())
    first, second = (links.of(one, one.rows[0], seed) for seed in (1, 2))
    assert first is not None
    assert second is not None
    assert first.key != second.key
    assert first.needs == second.needs
    assert "seed=2" in second.command


def test_a_ranker_without_text_is_taken_whatever_is_set_for_text(small_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(small_run, tmp_path / "run"))
    invoke("distil", "--variant", "id-only", "--run", str(run), "--json", *SMALL)
    one, own = experiment(), SMALL[1::2]

    def taken(*changes: str) -> bool:
        overrides = (*own, *changes)
        link = Links(RunDirectory(run), load_settings(None, overrides), None, overrides).of(one, one.rows[0], 1)
        return link is not None and link.own

    assert taken()
    assert taken("distil.whitening=0.5", "distil.teacher=false", "transitions.text_kept=7")
    assert not taken("distil.weight_decay=0.5")
    assert not taken("transitions.window=3")


def test_tuning_anew_means_embedding_anew(small_run: Path) -> None:
    rows = [{"name": "a", "label": "A", "set": {"tune.thaw": "frozen"}}, {"name": "b", "label": "B", "variant": "frozen-text"}]
    one = experiment(row=rows)
    links = Links(RunDirectory(small_run), load_settings(None), None, ())
    tuned, frozen = (links.of(one, row, 1) for row in one.rows)
    assert tuned is not None
    assert frozen is not None
    assert [step.kind for step in tuned.pending()] == ["tuned", "store", "ranker"]
    assert {need.kind: need.own for need in frozen.needs} == {"dataset": True, "backbone": True, "store": True}


def test_a_failing_step_is_named_and_its_row_is_not_in_the_table(small_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    floor = '[[row]]\nname = "floor"\nlabel = "floor"\nscorer = "floor"\n'
    bad = '[[row]]\nname = "bad"\nlabel = "bad"\nvariant = "id-only"\nset = { "distil.row_pull" = 0.5 }\n'
    path.write_text(f'title = "t"\nabout = "a"\n{floor}{bad}')
    _, found = find_experiment(str(path))
    step = Step(load_settings(None), RunDirectory(small_run), Reporter(as_json=True), False)
    one = Conduct("bad", found, step, (1,), list(found.rows))
    made = one.make_row(found.rows[1], 1)
    assert made == "a step failed"
    assert "ended with status 2" in one.failed[0]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"reference": "c"}, "compared with c, which is no row"),
        ({"row": [{"name": "a", "label": "A", "also": ["c"]}]}, "compared with c, which is no row"),
        ({"row": [{"name": "a", "label": "A", "also": ["a"]}]}, "compared with itself"),
        ({"row": [{"name": "a", "label": "A"}] * 2}, "two rows are called a"),
        ({"row": [{"name": "a", "label": "A", "sweep": "narm"}]}, "no backbone"),
        ({"row": [{"name": "a", "label": "A", "scorer": "floor", "transitions": False}]}, "no ranker"),
        ({"row": [{"name": "a", "label": "A", "set": {"evaluate.resamples": 100}}]}, "all rows alike"),
        ({"set": {"evaluate.resamples": 100}}, "all rows alike"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [1, 2, 1]}, "not different"),
        ({"seeds": [-1]}, "seeds"),
        ({"rows": []}, "rows"),
    ],
)
def test_an_experiment_that_does_not_fit_together_is_refused(changes: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        experiment(**changes)


def test_wrong_names_are_met_with_the_nearest() -> None:
    with pytest.raises(InputError, match="no experiment 'ablation'") as caught:
        find_experiment("ablation")
    assert "did you mean ablations?" in str(caught.value)
    with pytest.raises(InputError, match="no row 'no-txt'") as caught:
        find_experiment("ablations")[1].select(("no-txt",))
    assert "did you mean no-text?" in str(caught.value)


def test_a_row_is_chosen_with_all_that_it_is_compared_with() -> None:
    chosen = experiment(row=[{"name": n, "label": n, "also": also} for n, also in (("a", []), ("b", []), ("c", ["b"]))])
    assert [row.name for row in chosen.select(("c",))] == ["a", "b", "c"]


def test_the_floor_has_the_transitions_of_its_row(small_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "floors.toml"
    floor = '[[row]]\nname = "{0}"\nlabel = "{0}"\nscorer = "floor"\n'
    path.write_text(
        'title = "t"\nabout = "a"\n' + floor.format("own") + floor.format("blind") + 'set = { "transitions.backward" = 1.0 }\n'
    )
    scorers = json.loads(Path(run_toy(small_run, path)["result"]).read_text())["splits"]["test"]["scorers"]
    assert scorers["own"]["unmasked"]["all"]["MRR@20"] > scorers["blind"]["unmasked"]["all"]["MRR@20"]


def test_a_setting_nobody_has_names_its_row(small_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text('title = "t"\nabout = "a"\n[[row]]\nname = "one"\nlabel = "1"\nset = { "distil.epoch" = 3 }\n')
    with pytest.raises(SettingsError, match=r"row one: .*distil\.epoch") as caught:
        invoke("experiment", str(path), "--run", str(small_run), "--plan")
    assert "did you mean distil.epochs?" in str(caught.value)
