"""Ranking the test examples with a row's scorer, once: ranks are kept by the content of what was ranked."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from llmgr_core.artefacts import Manifest, open_artefact
from llmgr_core.artefacts.manifest import hash_value
from llmgr_core.data import Dataset
from llmgr_core.encoders import Backbone
from llmgr_core.evaluation import BackboneScorer, FloorScorer, PopularityScorer, Ranks, Scorer, evaluate
from llmgr_core.evaluation.calibration import top_probabilities
from llmgr_core.evaluation.comparison import MASKINGS
from llmgr_core.evaluation.session_neighbours import SessionNeighbourScorer, chosen_settings
from llmgr_core.progress import Reporter
from llmgr_core.sessions import Examples
from llmgr_core.settings import Settings
from llmgr_core.settings.sknn import SessionNeighbourSettings
from llmgr_core.transitions import TransitionGraph
from trainer.distil.evaluated_ranker import ranker_scorer
from trainer.experiments.definition import Row
from trainer.experiments.links import Link
from trainer.experiments.stale_vectors import StaleVectors

Stated = dict[str, tuple[np.ndarray, np.ndarray]]
"""By masking: probability of the first item of each ranking, float64 [n], and whether it was the target, bool [n]."""


class Ranking:
    """Ranks of one data set's examples.

    Args:
        dataset: what is ranked.
        batch_size: examples scored at once.
        settings_of: settings of a row.
        folder: where ranks are kept.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        settings_of: Callable[[Row], Settings],
        folder: Path,
        reporter: Reporter,
    ) -> None:
        self.dataset, self._batch_size, self._settings_of = dataset, batch_size, settings_of
        self._folder, self._reporter = folder, reporter
        self._neighbours: dict[str, tuple[SessionNeighbourSettings, dict[str, float]]] = {}
        self.splits: dict[str, Examples] = {
            name: examples for name, examples in (("test", dataset.test), ("heldout", dataset.heldout)) if len(examples)
        }

    def ranks(self, row: Row, link: Link | None, store: Path | None, split: str, stale: StaleVectors | None = None) -> Ranks:
        """The ranks under a row's scorer, computed where they are not kept yet."""
        path = self._place("ranks", row, link, split, stale)
        found = _read_ranks(path, row.name)
        if found is None or len(found) != len(self.splits[split]):
            scorer = self._scorer(row, link, store, stale)
            found = evaluate(scorer, self.splits[split], batch_size=self._batch_size, reporter=self._reporter)
            if not row.transitions:
                # Its temperature was fitted with the term.
                found = Ranks(found.name, found.masked, found.unmasked, found.seconds)
            _write_ranks(path, found)
        return found

    def stated(self, row: Row, link: Link | None, store: Path | None, split: str) -> Stated | None:
        """What a ranker said of its first items and whether it was right; None for scorers without probabilities."""
        if row.scorer != "ranker" or not row.transitions or row.stale:
            return None
        path = self._place("stated", row, link, split)
        try:
            with safe_open(path, framework="numpy") as stream:
                return {one: (stream.get_tensor(f"{one}.stated"), stream.get_tensor(f"{one}.right") > 0) for one in MASKINGS}
        except (OSError, SafetensorError, ValueError):
            pass
        scorer, examples = self._scorer(row, link, store), self.splits[split]
        size = self._batch_size
        parts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {masking: [] for masking in MASKINGS}
        for start in self._reporter.track(range(0, len(examples), size), f"probabilities of {row.name}"):
            batch = examples.select(slice(start, start + size))
            scores, seen = scorer.scores(batch), batch.prefixes()
            for masking in MASKINGS:
                probability, top = top_probabilities(scores, seen if masking == "masked" else None)
                parts[masking].append((probability, top == batch.targets))
        found = {one: tuple(np.concatenate(column) for column in zip(*parts[one], strict=True)) for one in MASKINGS}
        tensors = {f"{one}.stated": found[one][0] for one in MASKINGS}
        tensors |= {f"{one}.right": found[one][1].astype(np.uint8) for one in MASKINGS}
        _write(path, tensors, {})
        return {one: (found[one][0], found[one][1]) for one in MASKINGS}

    def chosen(self, row: Row) -> dict[str, Any]:
        """What was chosen on validation for a row without training, and by which figures."""
        if row.scorer != "sknn":
            return {}
        settings, tried = self._neighbours_of(row)
        return {"chosen": settings.model_dump(), **({"tried": tried} if tried else {})}

    def _neighbours_of(self, row: Row) -> tuple[SessionNeighbourSettings, dict[str, float]]:
        if row.name not in self._neighbours:
            data, given = self.dataset, self._settings_of(row).sknn
            self._neighbours[row.name] = chosen_settings(
                given, data.train, data.num_items, data.train_sessions, data.validation
            )
        return self._neighbours[row.name]

    def _scorer(self, row: Row, link: Link | None, store: Path | None, stale: StaleVectors | None = None) -> Scorer:
        if row.scorer == "popularity":
            return PopularityScorer(self.dataset.train_counts)
        if row.scorer == "floor":
            graph = TransitionGraph.build(self.dataset.train, self.dataset.num_items, self._settings_of(row).transitions)
            return FloorScorer(graph.pruned())
        if row.scorer == "sknn":
            data = self.dataset
            return SessionNeighbourScorer(data.train, data.num_items, self._neighbours_of(row)[0], data.train_sessions)
        assert link is not None
        artefact = open_artefact(link.path, link.kind)
        artefact.require_same_lineage(self.dataset.artefact)
        if row.scorer == "backbone":
            return BackboneScorer(Backbone.load(artefact), row.name)
        assert store is not None
        changed = None if stale is None else partial(stale.put_into, dataset=self.dataset)
        return ranker_scorer(artefact, self.dataset, store, row.name, with_transitions=row.transitions, changed=changed)

    def _place(self, what: str, row: Row, link: Link | None, split: str, stale: StaleVectors | None = None) -> Path:
        """The name holds everything that decides the ranks."""
        made = Manifest.read(link.path).digest if link is not None else row.scorer
        settings = self._settings_of(row).transitions.model_dump() if row.scorer == "floor" else {}
        settings |= self._neighbours_of(row)[0].model_dump() if row.scorer == "sknn" else {}
        settings |= stale.facts() if stale is not None else {}
        facts = {"made": made, "dataset": self.dataset.digest, "split": split, "transitions": row.transitions, **settings}
        return self._folder / f"{what}-{hash_value(facts)[:32]}.safetensors"


def _write_ranks(path: Path, ranks: Ranks) -> None:
    errors = {f"calibration_error.{name}": repr(value) for name, value in (ranks.calibration_error or {}).items()}
    _write(path, {"masked": ranks.masked, "unmasked": ranks.unmasked}, {"seconds": repr(ranks.seconds), **errors})


def _read_ranks(path: Path, name: str) -> Ranks | None:
    try:
        with safe_open(path, framework="numpy") as stream:
            facts = stream.metadata() or {}
            errors = {one: float(facts[f"calibration_error.{one}"]) for one in MASKINGS if f"calibration_error.{one}" in facts}
            tensors = stream.get_tensor("masked"), stream.get_tensor("unmasked")
            return Ranks(name, *tensors, float(facts["seconds"]), errors or None)
    except (OSError, SafetensorError, ValueError, KeyError):
        return None


def _write(path: Path, tensors: dict[str, np.ndarray], facts: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    save_file(tensors, temporary, metadata=facts)
    temporary.replace(path)
