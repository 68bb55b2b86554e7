"""``llmgr evaluate``: every scorer that a run directory holds, on the same examples."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from rich.console import Console

from llmgr_core.artefacts import Artefact, Manifest, open_artefact
from llmgr_core.command_line.step import Step, step_command
from llmgr_core.errors import ArtefactError, SettingsError
from llmgr_core.run_directory import RunDirectory

if TYPE_CHECKING:
    from llmgr_core.data import Dataset
    from llmgr_core.evaluation import Ranks, Scorer
    from llmgr_core.evaluation.results import SplitRanks
    from llmgr_core.sessions import Examples

RANKER_VARIANTS = ("id-only", "frozen-text", "fused")
TABLE_WIDTH = 150


@step_command("evaluate")
@click.option(
    "--seed-run",
    "seed_runs",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Another run on the same data with another seed, already evaluated: report the mean over all. May be repeated.",
)
def command(step: Step, seed_runs: tuple[Path, ...]) -> None:
    """Rank the test targets with the floor and with every model in RUN; full ranking, ties, buckets, intervals.

    Writes RUN/evaluation/results.json and the rank of every example under RUN/evaluation/ranks, then makes
    tables.txt, plots/*.svg and report.html from them and prints the tables. With --seed-run nothing is ranked: the results
    of RUN and of the other runs are averaged into RUN/evaluation/mean.json.
    """
    import torch

    from llmgr_core.evaluation.results import RESULTS_NAME, write_ranks, write_results

    if step.settings.threads:
        torch.set_num_threads(step.settings.threads)
    directory = step.run.evaluation
    if seed_runs:
        results = _mean_of_seeds([step.run.root, *seed_runs], step)
        write_results(directory / "mean.json", results)
        _show(results, directory, step, "mean-")
        return
    splits, dataset = _rank_everything(step)
    directory.mkdir(parents=True, exist_ok=True)
    write_ranks(directory, splits)
    seeds = [step.settings.seed]
    results = _results(dataset.protocol, {split: [found] for split, found in splits.items()}, step, seeds, dataset.digest)
    results["artefacts"] = _digests(step.run)
    write_results(directory / RESULTS_NAME, results)
    _show(results, directory, step)


def _rank_everything(step: Step) -> tuple[dict[str, SplitRanks], Dataset]:
    from llmgr_core.data import Dataset
    from llmgr_core.evaluation import evaluate
    from llmgr_core.evaluation.results import SplitRanks
    from llmgr_core.evaluation.retention import TEACHER

    artefact = open_artefact(step.run.dataset, "dataset")
    dataset = Dataset.open(artefact)
    batch_size = step.settings.evaluate.batch_size
    splits: dict[str, SplitRanks] = {}
    if _asks_teacher(step):
        # Found missing now rather than after everything else has been ranked.
        open_artefact(step.run.tuned, "tuned").require_same_lineage(open_artefact(step.run.backbone, "backbone"))
    scorers = _scorers(step, dataset)
    more = _new_item_scorers(step, dataset, scorers) if len(dataset.heldout) else {}
    names = [one.name for one in (*scorers, *(one for added in more.values() for one in added))]
    _require_reference(step, [*names, TEACHER] if _asks_teacher(step) else names)
    for split, examples in (("test", dataset.test), ("heldout", dataset.heldout)):
        if not len(examples):
            continue
        ranks: dict[str, Ranks] = {}
        for scorer in [*scorers, *more.get(split, [])]:
            ranks[scorer.name] = evaluate(scorer, examples, batch_size=batch_size, reporter=step.reporter)
            step.reporter.event(
                "evaluated",
                scorer=scorer.name,
                split=split,
                examples=len(examples),
                seconds=round(ranks[scorer.name].seconds, 2),
            )
        splits[split] = SplitRanks(_target_counts(dataset, examples), ranks)
        splits |= _with_teacher(step, dataset, split, examples, ranks)
    if not splits:
        raise ArtefactError(f"{step.run.dataset} holds no test examples", "prepare the data with another split")
    return splits, dataset


def _require_reference(step: Step, names: Sequence[str]) -> None:
    """Refuse a reference that nobody is, before anything is ranked."""
    wanted = step.settings.evaluate.reference
    if wanted not in ("auto", *names):
        raise SettingsError(
            f"evaluate.reference={wanted!r} is no scorer of {step.run.root}", f"there are {', '.join(names)}, or auto"
        )


def _asks_teacher(step: Step) -> bool:
    return bool(step.settings.evaluate.teacher_examples) and step.run.tuned.is_dir()


def _scorers(step: Step, dataset: Dataset) -> list[Scorer]:
    """What needs no training, then every trained model that stands in the run directory."""
    from llmgr_core.encoders import Backbone
    from llmgr_core.evaluation import BackboneScorer, FloorScorer, PopularityScorer
    from llmgr_core.evaluation.session_neighbours import SessionNeighbourScorer, chosen_settings
    from llmgr_core.transitions import TransitionGraph
    from trainer.distil.evaluated_ranker import ranker_scorer

    run = step.run
    graph = TransitionGraph.build(dataset.train, dataset.num_items, step.settings.transitions).pruned()
    train, numbers = dataset.train, dataset.train_sessions
    sknn, tried = chosen_settings(step.settings.sknn, train, dataset.num_items, numbers, dataset.validation)
    if tried:
        step.reporter.event(
            "sknn", neighbours=sknn.neighbours, **{f"validation_{count}": value for count, value in tried.items()}
        )
    neighbours = SessionNeighbourScorer(train, dataset.num_items, sknn, numbers)
    scorers: list[Scorer] = [PopularityScorer(dataset.train_counts), neighbours, FloorScorer(graph)]
    if run.backbone.is_dir():
        backbone = open_artefact(run.backbone, "backbone")
        backbone.require_same_lineage(dataset.artefact)
        scorers.append(BackboneScorer(Backbone.load(backbone)))
    for variant in RANKER_VARIANTS:
        if run.ranker(variant).is_dir():
            ranker = open_artefact(run.ranker(variant), "ranker")
            ranker.require_same_lineage(dataset.artefact)
            scorers.append(ranker_scorer(ranker, dataset, run.store, variant))
    return scorers


def _new_item_scorers(step: Step, dataset: Dataset, scorers: Sequence[Scorer]) -> dict[str, list[Scorer]]:
    """What only data with held-out items is ranked by: clicked items alone on test, the nearest text on held-out items."""
    from llmgr_core.evaluation.new_items import AmongClicked
    from llmgr_core.ranker.stored import StoredRanker
    from trainer.distil.inputs import read_text_vectors
    from trainer.distil.nearest_text import nearest_text

    with_text = [variant for variant in RANKER_VARIANTS if variant != "id-only" and step.run.ranker(variant).is_dir()]
    if not with_text:
        return {}
    described = StoredRanker.read(step.run.ranker(with_text[-1])).description
    text = read_text_vectors(step.run.store, dataset, described.fingerprint)
    nearest, chosen = nearest_text(text, dataset.train_counts, dataset.heldout_validation)
    step.reporter.event("nearest text", vectors_of=with_text[-1], **chosen)
    among = [AmongClicked(scorer, dataset.train_counts) for scorer in scorers if scorer.name in with_text]
    return {"test": [*among], "heldout": [nearest]}


def _with_teacher(
    step: Step, dataset: Dataset, split: str, examples: Examples, ranks: Mapping[str, Ranks]
) -> dict[str, SplitRanks]:
    """The language model itself on some examples, beside everything else on those same examples."""
    from llmgr_core.evaluation import evaluate
    from llmgr_core.evaluation.results import SplitRanks

    if not _asks_teacher(step):
        return {}
    from trainer.tune.teacher import Teacher

    tuned = open_artefact(step.run.tuned, "tuned")
    tuned.require_same_lineage(dataset.artefact)
    limit = min(step.settings.evaluate.teacher_examples, len(examples))
    places = np.unique(np.linspace(0, len(examples) - 1, limit).round().astype(np.int64))
    some = examples.select(places)
    teacher = Teacher.load(tuned, dataset, open_artefact(step.run.backbone, "backbone"), step.settings.engine, step.reporter)
    found = {name: one.select(places) for name, one in ranks.items()}
    found[teacher.name] = evaluate(teacher, some, batch_size=len(some))
    step.reporter.event("evaluated", scorer=teacher.name, split=split, examples=len(some), seconds=found[teacher.name].seconds)
    return {f"{split}-{len(some)}": SplitRanks(_target_counts(dataset, some), found)}


def _digests(run: RunDirectory) -> dict[str, str]:
    """Digest of every artefact that was evaluated, so that a figure can be traced to its weights."""
    paths = [run.dataset, run.backbone, run.tuned, *(run.ranker(variant) for variant in RANKER_VARIANTS)]
    return {path.name: Artefact(path, Manifest.read(path)).digest for path in paths if path.is_dir()}


def _target_counts(dataset: Dataset, examples: Examples) -> Any:
    return np.asarray(dataset.train_counts)[examples.targets].astype(np.int64)


def _results(
    data_protocol: dict[str, Any], splits: Mapping[str, Sequence[SplitRanks]], step: Step, seeds: list[int], digest: str
) -> dict[str, Any]:
    from llmgr_core.evaluation import PairedBootstrap, protocol
    from llmgr_core.evaluation.comparison import choose_reference, compare
    from llmgr_core.evaluation.new_items import found_new_items, warm_change
    from llmgr_core.evaluation.retention import retention

    settings = step.settings.evaluate
    bootstrap = PairedBootstrap(settings.resamples, settings.confidence, step.settings.seed)
    found = {}
    for split, runs in splits.items():
        names = [name for name in runs[0].ranks if all(name in run.ranks for run in runs)]
        ranks = {name: [run.ranks[name] for run in runs] for name in names}
        found[split] = compare(ranks, runs[0].train_counts, choose_reference(settings.reference, names), bootstrap)
        if new := found_new_items(ranks, bootstrap):
            found[split]["new_items"] = new
        if warm := warm_change(ranks, runs[0].train_counts, bootstrap):
            found[split]["warm"] = warm
        if kept := retention(ranks, runs[0].train_counts, bootstrap):
            found[split]["retention"] = kept
    facts = {
        "dataset": digest,
        "seeds": seeds,
        "intervals": f"percentile intervals of a paired bootstrap, {settings.resamples} resamples of the examples",
        "confidence": settings.confidence,
    }
    return {"protocol": protocol(data_protocol, seed=step.settings.seed, **facts), "splits": found}


def _mean_of_seeds(runs: Sequence[Path], step: Step) -> dict[str, Any]:
    from llmgr_core.evaluation.results import read_results

    read = [read_results(RunDirectory(root).evaluation) for root in runs]
    protocols = [results["protocol"] for results, _ in read]
    for root, one in zip(runs, protocols, strict=True):
        if one["dataset"] != protocols[0]["dataset"]:
            raise ArtefactError(f"{root} was evaluated on other data than {runs[0]}", "give runs of one data set")
    seeds = [seed for one in protocols for seed in one["seeds"]]
    if len(set(seeds)) != len(seeds):
        raise ArtefactError(f"runs with the seeds {seeds}: a mean over seeds needs different ones", "set `seed` in each run")
    shared = [split for split in read[0][1] if all(split in splits for _, splits in read)]
    ranked = dict.fromkeys(name for split in shared for name in read[0][1][split].ranks)
    everywhere = [name for name in ranked if any(all(name in splits[split].ranks for _, splits in read) for split in shared)]
    _require_reference(step, everywhere)
    splits = {split: [one[split] for _, one in read] for split in shared}
    return _results(protocols[0]["data"], splits, step, seeds, protocols[0]["dataset"])


def _show(results: Mapping[str, Any], directory: Path, step: Step, prefix: str = "") -> None:
    """Print the tables, and keep them as text, the plots as SVG, and all of it as an HTML page."""
    from llmgr_core.evaluation.page import page
    from llmgr_core.evaluation.plots import plots
    from llmgr_core.evaluation.tables import tables

    recording = Console(record=True, width=TABLE_WIDTH, file=io.StringIO(), force_terminal=False)
    console = Console(width=None if Console().is_terminal else TABLE_WIDTH)
    for table in tables(results):
        recording.print(table)
        console.print(table)
    recording.save_text(str(directory / f"{prefix}tables.txt"), clear=False)
    figures: dict[str, str] = {}
    try:
        figures = dict(plots(results))
    except ModuleNotFoundError:
        step.reporter.event("no plots", reason="matplotlib is not installed", hint="pip install 'llmgr[plots]'")
    folder = directory / "plots"
    folder.mkdir(exist_ok=True)
    for name, drawing in figures.items():
        (folder / f"{prefix}{name}.svg").write_text(drawing, encoding="utf-8")
    title = f"Evaluation of {step.run.root.name}" + (", mean over seeds" if prefix else "")
    (directory / f"{prefix}report.html").write_text(page(results, recording, figures, title), encoding="utf-8")
