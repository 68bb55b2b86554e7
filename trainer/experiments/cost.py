"""What a row costs: training, parameters, and the time of a request."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llmgr_core.artefacts import Manifest, open_artefact
from llmgr_core.data import Dataset
from llmgr_core.ranker import RankerRuntime
from llmgr_core.ranker.stored import StoredRanker
from trainer.distil.inputs import read_text_vectors
from trainer.experiments.links import Link, costs

REQUESTS, WARM_UP, TOP_K = 300, 30, 20


def training_cost(link: Link) -> dict[str, Any]:
    """From the artefact's own manifest, and from the clock of the experiment where it did the training.

    Returns:
        ``parameters``, ``epochs``, ``training_seconds`` (wall), and ``cpu_seconds``, ``seconds`` of all steps that only this
        row needs.
    """
    manifest = Manifest.read(link.path)
    seconds = sum(manifest.metrics.get("epoch_seconds", []))
    found: dict[str, Any] = {
        "parameters": manifest.details.get("parameters"),
        "epochs": manifest.metrics.get("epochs"),
        "training_seconds": round(seconds, 1) or None,
    }
    spent = [costs(one) for one in _chain(link) if not one.own]
    for key in ("cpu_seconds", "seconds"):
        if any(key in one for one in spent):
            found[key] = round(sum(one.get(key, 0.0) for one in spent), 1)
    return found


def tuning_budget(run: Path, model: str) -> str:
    """The budget of a sweep as one line."""
    try:
        budget = json.loads((run / "sweeps" / model / "trials.json").read_text(encoding="utf-8"))["budget"]
        return f"{budget['trials']} trials, {budget['epochs']} epochs, {budget['seconds'] / 60:.0f} min"
    except (OSError, ValueError, KeyError):
        return "unknown"


def request_cost(link: Link, dataset: Dataset, store: Path) -> dict[str, float]:
    """Median milliseconds of one session's ranking in process, one thread, and bytes an item.

    Returns:
        ``request_ms`` (p50), ``request_p99_ms``, ``row_bytes``, ``transition_bytes`` (mean an item).
    """
    artefact = open_artefact(link.path, "ranker")
    stored = StoredRanker.read(artefact.path)
    vectors, present = None, None
    if stored.transform is not None:
        # Which numbers stand in a row does not change how long it takes; controls are left out.
        text = read_text_vectors(store, dataset, stored.description.fingerprint, stored.description.text_below)
        vectors, present = text.vectors, text.present
    snapshot = RankerRuntime(stored.parts("", dataset.item_ids), vectors, present).snapshot
    examples = dataset.test.evenly_spread(REQUESTS + WARM_UP)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    taken = []
    try:
        for number in range(len(examples)):
            clicks = examples.prefix(number).astype(np.int64)
            started = time.perf_counter()
            snapshot.rank(clicks, TOP_K)
            taken.append(1e3 * (time.perf_counter() - started))
    finally:
        torch.set_num_threads(threads)
    kept = np.array(taken[min(WARM_UP, len(taken) // 2) :])
    graph = stored.transitions
    return {
        "request_ms": round(float(np.quantile(kept, 0.5)), 4),
        "request_p99_ms": round(float(np.quantile(kept, 0.99)), 4),
        "row_bytes": 4.0 * stored.description.encoder.dimension,
        "transition_bytes": round((graph.neighbours.nbytes + graph.weights.nbytes) / max(graph.num_items, 1), 1),
    }


def _chain(link: Link) -> list[Link]:
    found = [link]
    for need in link.needs:
        found += [one for one in _chain(need) if one not in found]
    return found
