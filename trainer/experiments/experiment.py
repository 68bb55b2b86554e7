"""An experiment from its file to its result, top to bottom."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from llmgr_core.artefacts import Manifest, open_artefact
from llmgr_core.command_line.step import Step
from llmgr_core.data import Dataset
from llmgr_core.errors import ArtefactError, InputError, LlmgrError
from llmgr_core.evaluation import PairedBootstrap, expected_calibration_error, protocol
from llmgr_core.evaluation.comparison import MASKINGS
from llmgr_core.evaluation.near_duplicates import Members
from llmgr_core.evaluation.reliability import reliability
from llmgr_core.store.errors import StoreError
from trainer.distil.inputs import encoder_fingerprint, read_text_vectors
from trainer.experiments.cost import request_cost, training_cost, tuning_budget
from trainer.experiments.definition import Experiment, Row
from trainer.experiments.links import Link, Links
from trainer.experiments.making import StepFailedError, make
from trainer.experiments.near_duplicates import closeness_groups, near_duplicates
from trainer.experiments.outcome import UNTRAINED, RowRanks, compare_rows
from trainer.experiments.ranking import Ranking
from trainer.experiments.same_clicks import require_same_clicks
from trainer.experiments.stale_vectors import StaleVectors


@dataclass
class Conduct:
    """One experiment on one run.

    Attributes:
        name: of the experiment.
        experiment: what it says.
        step: run, settings, reporter.
        seeds: of the last training of each row.
        rows: those to train and rank; the others stay out of the result, named as not run.
        train: False makes nothing and takes what is there.
        failed: messages of steps that ended with an error.
    """

    name: str
    experiment: Experiment
    step: Step
    seeds: tuple[int, ...]
    rows: list[Row]
    train: bool = True
    failed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.links = Links(self.step.run, self.step.settings, self.step.config, self.step.overrides)

    def seeds_of(self, row: Row) -> tuple[int, ...]:
        """The seeds a row is run with; one, and none in particular, where nothing is trained."""
        return self.seeds if row.trained else (UNTRAINED,)

    def stale_of(self, row: Row) -> StaleVectors | None:
        """The vectors that a row's stale items have; None for a row without such items."""
        if row.stale is None:
            return None
        store, tuned = self.links.stale_vectors(self.experiment, row) or (None, None)
        return StaleVectors(row.stale, self.links.settings_of_stale(self.experiment, row), store, tuned)

    def plan(self) -> list[dict[str, Any]]:
        """What would have to be made, a line a row and seed; nothing is touched."""
        lines: list[dict[str, Any]] = []
        planned: list[Link] = []
        for row in self.rows:
            for seed in self.seeds_of(row):
                line: dict[str, Any] = {"row": row.name, "seed": seed} if row.trained else {"row": row.name}
                try:
                    link = self.links.of(self.experiment, row, seed) or self.links.dataset(self.experiment, row)
                    stale = self.stale_of(row)
                    also = stale.store.pending() if stale and stale.store else []
                    pending = [one for one in dict.fromkeys([*link.pending(), *also]) if one not in planned]
                    planned += pending
                    missing = [str(one.path) for one in pending if one.own]
                    line["steps"] = [" ".join(("llmgr", *one.command)) for one in pending if not one.own]
                    if missing:
                        line["missing"] = missing
                except ArtefactError as error:
                    line["missing"] = [_why(error)]
                lines.append(line)
        return lines

    def make_row(self, row: Row, seed: int) -> tuple[Link, Link | None] | str:
        """The data set of a row and what is ranked, trained if need be; or why there is nothing to rank."""
        try:
            dataset = self.links.dataset(self.experiment, row)
            link = self.links.of(self.experiment, row, seed)
            stale = self.stale_of(row)
            wanted = [link or dataset, *([stale.store] if stale and stale.store else [])]
            if any(one.pending() for one in wanted) and not self.train:
                return "not trained"
            for one in wanted:
                self._require_vectors(row, one)
                make(one, self.step.run, self.step.reporter)
        except StepFailedError as error:
            self.failed.append(f"{row.name}, seed {seed}: {error}" if row.trained else f"{row.name}: {error}")
            return "a step failed"
        except (ArtefactError, StoreError) as error:
            return _why(error)
        return dataset, link

    def _require_vectors(self, row: Row, link: Link) -> None:
        """Refuse a training that would not find its text vectors in the run's own store.

        Raises:
            ArtefactError, StoreError: the store lacks them.
        """
        needs = {need.kind: need for need in link.needs}
        if link.finished() or "store" not in needs or not needs["store"].own or any(one.pending() for one in link.needs):
            return
        settings = self.links.settings_of(self.experiment, row)
        dataset = Dataset.open(open_artefact(needs["dataset"].path, "dataset"))
        tuned = open_artefact(needs["tuned"].path, "tuned") if "tuned" in needs else None
        fingerprint = encoder_fingerprint(settings, dataset, tuned)
        read_text_vectors(needs["store"].path, dataset, fingerprint, settings.distil.text_below)


def conduct(one: Conduct) -> dict[str, Any]:
    """Train, rank and compare.

    Raises:
        LlmgrError: no row could be ranked, rows of one experiment stand on different clicks, or a measure lacks its vectors.
    """
    reporter, settings = one.step.reporter, one.step.settings
    rankings: dict[Path, Ranking] = {}
    closeness: dict[str, Members] = {}
    done: list[dict[str, Any]] = []
    not_run: list[dict[str, Any]] = []
    splits: dict[str, list[RowRanks]] = {}
    calibration: dict[str, Any] = {}
    chosen = {row.name for row in one.rows}
    for row in one.experiment.rows:
        if row.name not in chosen:
            not_run.append({"name": row.name, "label": row.label, "seeds": [], "why": ""})
            continue
        facts = _facts(one, row)
        gaps: dict[str, list[int]] = {}
        for seed in one.seeds_of(row):
            made = one.make_row(row, seed)
            if isinstance(made, str):
                gaps.setdefault(made, []).append(seed)
                continue
            data, link = made
            ranking = rankings.get(data.path.resolve())
            if ranking is None:
                dataset = Dataset.open(open_artefact(data.path, "dataset"))
                for before in rankings.values():
                    require_same_clicks(before.dataset, dataset, row.name)
                ranking = rankings[data.path.resolve()] = Ranking(
                    dataset,
                    settings.evaluate.batch_size,
                    lambda row: one.links.settings_of(one.experiment, row),
                    one.step.run.experiments / "ranks",
                    reporter,
                )
                if "near-duplicates" in one.experiment.measure and not closeness:
                    closeness = closeness_groups(settings, dataset, one.step.run.store, ranking.splits)
            store = None if link is None or link.kind != "ranker" else one.links.store_of(link)
            try:
                stale = one.stale_of(row)
                ranks = {split: ranking.ranks(row, link, store, split, stale) for split in ranking.splits}
                stated: dict[str, Any] = {}
                if "calibration" in one.experiment.measure and row.name not in calibration:
                    stated = {split: _calibration(ranking, row, link, store, split) for split in ranking.splits}
                if link is not None:
                    _add_facts(one, row, facts, link, seed, ranking.dataset, store)
                facts |= ranking.chosen(row)
            except (ArtefactError, StoreError, InputError) as error:
                gaps.setdefault(_why(error), []).append(seed)
                continue
            if stated and all(stated.values()):
                calibration[row.name] = stated
            for split, of_split in ranks.items():
                rows = splits.setdefault(split, [])
                if not rows or rows[-1].name != row.name:
                    rows.append(RowRanks(row.name, one.experiment.reference_of(row), also=row.also))
                rows[-1].by_seed[seed] = of_split
            reporter.event("row", row=row.name, **({"seed": seed} if row.trained else {}))
        for why, seeds in gaps.items():
            named = [seed for seed in seeds if seed != UNTRAINED]
            not_run.append({"name": row.name, "label": row.label, "seeds": named, "why": why})
        if not gaps or facts["seeds"]:
            done.append(facts)
    first = next(iter(rankings.values()), None)
    if first is None or not splits:
        whys = [failure.partition("\n")[0] for failure in one.failed] or [
            f"{row['name']}: {row['why']}" for row in not_run if row["why"]
        ]
        raise LlmgrError(f"no row of {one.name} has anything to rank: {'; '.join(whys)}", "--plan prints what each row needs")
    bootstrap = PairedBootstrap(settings.evaluate.resamples, settings.evaluate.confidence, settings.seed)
    counts = np.asarray(first.dataset.train_counts)
    compared = {
        split: compare_rows(rows, counts[first.splits[split].targets], bootstrap, one.experiment.reference)
        for split, rows in splits.items()
    }
    return {
        "experiment": one.name,
        "title": one.experiment.title,
        "about": one.experiment.about,
        "protocol": protocol(
            first.dataset.protocol,
            seed=settings.seed,
            dataset=first.dataset.digest,
            seeds=list(one.seeds),
            intervals=f"percentile intervals of a paired bootstrap, {settings.evaluate.resamples} resamples of the examples",
            confidence=settings.evaluate.confidence,
        ),
        "rows": done,
        "not_run": not_run,
        "splits": compared,
        **({"calibration": calibration} if calibration else {}),
        **({"near_duplicates": near_duplicates(splits, closeness, bootstrap)} if closeness else {}),
    }


def _facts(one: Conduct, row: Row) -> dict[str, Any]:
    facts: dict[str, Any] = {"name": row.name, "label": row.label, "scorer": row.scorer}
    if row.scorer == "ranker":
        facts["variant"] = row.variant
    if one.experiment.set or row.set:
        facts["set"] = {**one.experiment.set, **row.set}
    if not row.transitions:
        facts["transitions"] = False
    if row.stale:
        facts["stale"] = row.stale.model_dump()
    if row.sweep:
        facts["budget"] = tuning_budget(one.step.run.root, row.sweep)
    return {**facts, "seeds": [], "artefacts": {}, "cost": {}}


def _add_facts(
    one: Conduct, row: Row, facts: dict[str, Any], link: Link, seed: int, dataset: Dataset, store: Path | None
) -> None:
    manifest = Manifest.read(link.path)
    if not facts["seeds"]:
        # Of the first seed: the others cost the same but for luck.
        facts["cost"] = training_cost(link)
        facts["validation"] = manifest.metrics.get("validation", {})
        facts["transitions_fitted"] = manifest.metrics.get("transitions")
        if "cost" in one.experiment.measure and link.kind == "ranker" and store is not None:
            facts["cost"] |= request_cost(link, dataset, store)
    if "id_prior" in manifest.metrics:
        facts.setdefault("id_prior_fitted", {})[str(seed)] = manifest.metrics["id_prior"]
    facts["artefacts"][str(seed)] = {"digest": manifest.digest, "inputs": manifest.inputs, "settings": manifest.settings}
    facts["seeds"].append(seed)


def _why(error: LlmgrError) -> str:
    """Reason and way out in one line."""
    return f"{error.args[0]}; {error.hint}" if error.hint else str(error.args[0])


def _calibration(ranking: Ranking, row: Row, link: Link | None, store: Path | None, split: str) -> dict[str, Any] | None:
    stated = ranking.stated(row, link, store, split)
    if stated is None:
        return None
    return {
        masking: {
            "error": expected_calibration_error(*stated[masking]),
            "bins": reliability(*stated[masking]),
        }
        for masking in MASKINGS
    }
