"""The neighbours of one item in every space that a run has of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from llmgr_core.artefacts import open_artefact
from llmgr_core.explanation.click_evidence import sessions_together
from llmgr_core.explanation.neighbours import Neighbours, Space, following, fused_space, overlaps, share_alike
from llmgr_core.ranker.stored import StoredRanker

if TYPE_CHECKING:
    from trainer.explain.explained_run import ExplainedRun

TRANSITIONS = "transitions"
MEANINGS = {
    "clicks": "ID vectors of a model without text: items clicked in like sessions",
    "text": "text vectors of the language model of this ranker: items described alike",
    "untuned text": "text vectors of the language model as it came",
    "id part": "what the ranker's ID vectors add to the text",
    "fused": "rows of the ranker, ID and text together: what it compares",
    TRANSITIONS: "where a click on the item leads in the transition graph",
}


@dataclass(frozen=True)
class SpaceView:
    """One space around one item.

    Attributes:
        neighbours: None where the item has no vector there.
        together: int64 [m], training sessions that hold the item and each neighbour.
        same_category, same_brand: share of the neighbours alike in that; None where the item has none or the data knows none.
    """

    neighbours: Neighbours | None
    together: npt.NDArray[np.int64]
    same_category: float | None
    same_brand: float | None


@dataclass(frozen=True)
class Neighbourhood:
    """An item and its neighbours.

    Attributes:
        item: its index.
        views: by name of the space (see MEANINGS); spaces that the run does not have are not there.
        shared: how many neighbours two lists share.
        chance_category, chance_brand: the shares that a list drawn at random would have.
    """

    item: int
    views: Mapping[str, SpaceView]
    shared: Mapping[tuple[str, str], int]
    chance_category: float | None
    chance_brand: float | None


def spaces(run: ExplainedRun) -> dict[str, Space]:
    """Every space of vectors that the run has, in the order of MEANINGS."""
    stored, snapshot = run.stored, run.runtime.snapshot
    found: dict[str, Space] = {}
    clicks = _id_only_vectors(run)
    if clicks is not None:
        found["clicks"] = _longer(Space(clicks, stored.has_id), snapshot.num_items)
    texts = run.all_vectors()
    if texts is not None:
        found["text"] = Space.centred(*texts)
        untuned = _untuned_space(run)
        if untuned is not None:
            found["untuned text"] = _longer(untuned, snapshot.num_items)
        found["id part"] = _longer(Space(stored.id_vectors, stored.has_id), snapshot.num_items)
    found["fused"] = fused_space(snapshot)
    return found


def neighbourhood(run: ExplainedRun, item: int, k: int) -> Neighbourhood:
    """The k nearest items by each space, and where transitions lead."""
    lists = {name: space.nearest(item, k) for name, space in spaces(run).items()}
    lists[TRANSITIONS] = following(run.runtime.snapshot, item, k)
    everything = np.delete(np.arange(run.dataset.num_items), [item] if item < run.dataset.num_items else [])
    return Neighbourhood(
        item=item,
        views={name: _view(run, one, item) for name, one in lists.items()},
        shared=overlaps(lists),
        chance_category=share_alike(everything, run.dataset.category_codes, item),
        chance_brand=share_alike(everything, run.dataset.brand_codes, item),
    )


def _view(run: ExplainedRun, neighbours: Neighbours | None, item: int) -> SpaceView:
    if neighbours is None:
        return SpaceView(None, np.zeros(0, dtype=np.int64), None, None)
    items, dataset = neighbours.items, run.dataset
    together = sessions_together(dataset.train, item, items, run.runtime.snapshot.num_items)
    return SpaceView(
        neighbours, together, share_alike(items, dataset.category_codes, item), share_alike(items, dataset.brand_codes, item)
    )


def _id_only_vectors(run: ExplainedRun) -> npt.NDArray[np.float32] | None:
    """x_v of the ranker without text, else of the backbone."""
    if run.stored.transform is None:
        return None
    if run.run.ranker("id-only").is_dir():
        artefact = open_artefact(run.run.ranker("id-only"), "ranker")
        artefact.require_same_lineage(run.dataset.artefact)
        return StoredRanker.read(artefact.path).id_vectors
    if run.run.backbone.is_dir():
        from llmgr_core.encoders import Backbone

        artefact = open_artefact(run.run.backbone, "backbone")
        artefact.require_same_lineage(run.dataset.artefact)
        table: npt.NDArray[np.float32] = Backbone.load(artefact).item_table.detach().numpy()
        return table
    return None


def _untuned_space(run: ExplainedRun) -> Space | None:
    """Text vectors of the frozen-text control, where the run has it beside a tuned ranker."""
    if run.stored.description.variant != "fused" or not run.run.ranker("frozen-text").is_dir():
        return None
    from llmgr_core.store import EmbeddingStore

    fingerprint = StoredRanker.read(run.run.ranker("frozen-text")).description.fingerprint
    with EmbeddingStore.open(run.run.store) as store:
        if fingerprint not in {encoder.fingerprint for encoder in store.encoders()}:
            return None
        return Space.centred(*store.read_vectors(run.dataset.item_ids, fingerprint))


def _longer(space: Space, num_items: int) -> Space:
    """The same space when items were inserted since: they have no vector in it."""
    more = num_items - len(space.known)
    if not more:
        return space
    empty = np.zeros((more, space.vectors.shape[1]), dtype=space.vectors.dtype)
    return Space(np.concatenate([space.vectors, empty]), np.append(space.known, np.zeros(more, dtype=np.bool_)))
