"""One bundle over one store, kept up to date with the store's change log."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from llmgr_core.bundle import Bundle
from llmgr_core.errors import ArtefactError, LlmgrError
from llmgr_core.ranker import RankerRuntime, RowChange, Snapshot
from llmgr_core.ranker.snapshot import UNKNOWN
from llmgr_core.settings.ann import AnnSettings
from llmgr_core.store import EmbeddingStore, metadata
from llmgr_core.store.place import DATA_NAME
from services.ranking.array_directory import SharedArrays, give_memory_back
from services.ranking.row_search import RowSearch

if TYPE_CHECKING:
    from llmgr_core.ranker.graphed_ranking import GraphedRanking

Device = Literal["cpu", "cuda"]
WARM_UP_SESSIONS = 50
WARM_UP_CLICKS = (1, 2, 5, 20, 200)
# Of a large table fewer sessions do, once each kind of them was ranked twice: they take the same path, only longer.
WARM_UP_LEAST, WARM_UP_SECONDS = 2 * len(WARM_UP_CLICKS), 0.1
FINGERPRINT_SHOWN = 12


class LiveRanker:
    """Ranks by a bundle and by what stands in a store now. ``snapshot`` may be read by any thread, ``follow`` is for one.

    Attributes:
        version: version of the bundle.
        fingerprint: encoder of the text vectors the bundle stands on; "" where it ranks by ids alone.
        store_epoch: identity of the store; "" without one.
    """

    def __init__(
        self,
        bundle: Bundle,
        store: EmbeddingStore | None,
        device: Device = "cpu",
        arrays: SharedArrays | None = None,
        ann: AnnSettings | None = None,
    ) -> None:
        self.bundle = bundle
        self.version = bundle.version
        self.fingerprint = bundle.fingerprint or ""
        self.store_epoch = "" if store is None else store.epoch
        self._store = store
        self._transaction = -1
        self._arrays = arrays
        self.runtime = _runtime(bundle, store)
        self._search = RowSearch(ann) if ann is not None and ann.enabled else None
        self._graphs: GraphedRanking | None = None
        if device != "cpu":
            from llmgr_core.ranker.graphed_ranking import GraphedRanking

            self._graphs = GraphedRanking(bundle.ranker, self.runtime, device)

    @classmethod
    def open(
        cls,
        bundle_path: Path,
        store_path: Path,
        device: Device = "cpu",
        arrays: SharedArrays | None = None,
        ann: AnnSettings | None = None,
    ) -> LiveRanker:
        """Load and verify a bundle, build the rows of all items, catch up with the store and warm up.

        Args:
            store_path: directory of the embedding store; a bundle that ranks by ids alone does without one.
            device: where sessions are ranked.
            arrays: where rows and weights are held, together with the server's other processes; None keeps them here.
            ann: whether, and how, a large table is searched approximately; None scans it exactly.

        Raises:
            LlmgrError: this machine has no such device; approximate search without faiss, or on a GPU.
            ArtefactError: the bundle is missing, damaged, of another version, or the store holds another model's vectors.
            StoreError: the store is missing or cannot be read.
        """
        if ann is not None and ann.enabled and device != "cpu":
            raise LlmgrError("serve.ann is for ranking on the CPU", 'set serve.device="cpu" or serve.ann.enabled=false')
        bundle = Bundle.open(bundle_path, verify=True)
        if arrays is not None:
            bundle = _shared(bundle, arrays)
        return cls.over(bundle, store_path, device, arrays, ann)

    @classmethod
    def over(
        cls,
        bundle: Bundle,
        store_path: Path,
        device: Device = "cpu",
        arrays: SharedArrays | None = None,
        ann: AnnSettings | None = None,
    ) -> LiveRanker:
        """As ``open``, with a bundle that is in memory already."""
        without_store = bundle.fingerprint is None and store_identity(store_path) is None
        store = None if without_store else EmbeddingStore.open(store_path)
        try:
            if store is not None:
                _require_same_encoder(bundle, store)
                _require_every_vector(bundle, store)
            ranker = cls(bundle, store, device, arrays, ann)
            ranker.follow()
            ranker.share_rows()
            ranker.build_index()
        except BaseException:
            if store is not None:
                store.close()
            raise
        ranker.warm_up()
        return ranker

    @property
    def snapshot(self) -> Snapshot:
        """The newest state of rows and tombstones; take it once a request."""
        if self._graphs is not None:
            return self._graphs.snapshot()
        snapshot = self.runtime.snapshot
        return snapshot if self._search is None else self._search.on(snapshot)

    def follow(self) -> list[str] | None:
        """Take in what the store has committed since the last call.

        Returns:
            None where nothing was committed; else ids of items whose new vector could not be used.

        Raises:
            StoreError: the store cannot be read; the rows stay as they are.
        """
        if self._search is not None:
            self._search.follow(self.runtime.snapshot)
        if self._store is None:
            return None
        # Asked before the log is read: a commit in between only makes the next call look once more.
        transaction = self._store.transaction_id()
        if transaction == self._transaction:
            return None
        refused: list[str] = []
        while True:
            news = self._store.updates(self.snapshot.sequence, self.fingerprint)
            changes = [RowChange(one.item_id, one.vector, one.deleted) for one in news.updates]
            if self._search is not None:
                known = (self.runtime.snapshot.index_of(change.item_id) for change in changes if not change.removed)
                self._search.changing(index for index in known if index != UNKNOWN)
            if changes or news.sequence != self.snapshot.sequence:
                refused += self.runtime.apply(changes, news.sequence)
            if not news.behind:
                break
        self._transaction = transaction
        return refused

    def lag(self) -> int:
        """Changes that the store has and the rows do not; 0 without a store.

        Raises:
            StoreError: the store cannot be read.
        """
        return 0 if self._store is None else max(self._store.sequence() - self.snapshot.sequence, 0)

    def share_rows(self) -> None:
        """Hold the rows together with the server's other processes, those that changed since the last time too."""
        if self._arrays is not None:
            share = self._arrays.share
            self.runtime.move_rows(lambda rows: rows.shared(share))
            give_memory_back()

    def build_index(self) -> None:
        """Build what an approximate search needs, where it is asked for."""
        if self._search is not None:
            self._search.build(self.runtime.snapshot)

    def warm_up(self) -> None:
        """Rank sessions of several lengths, so that the first request is as fast as the next one."""
        snapshot = self.snapshot
        if self._graphs is not None:
            self._graphs.warm_up()
        random = np.random.default_rng(0)
        started = time.monotonic()
        for number in range(WARM_UP_SESSIONS if snapshot.num_items else 0):
            clicks = random.integers(0, snapshot.num_items, WARM_UP_CLICKS[number % len(WARM_UP_CLICKS)])
            snapshot.rank(clicks.astype(np.int64), 1000 if number % 10 == 0 else 20)
            if number + 1 >= WARM_UP_LEAST and time.monotonic() - started > WARM_UP_SECONDS:
                break
        snapshot.rank(np.zeros(0, dtype=np.int64))

    def close(self) -> None:
        """Let go of the store; rankings from the rows in memory still work."""
        if self._store is not None:
            self._store.close()


def store_identity(store_path: Path) -> tuple[int, int] | None:
    """Device and inode of a store's file, which change when another store takes its place; None where there is none."""
    try:
        status = (store_path / DATA_NAME).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _shared(bundle: Bundle, arrays: SharedArrays) -> Bundle:
    """The same bundle with its large arrays held for all processes."""
    stored, share = bundle.ranker, arrays.share
    graph = stored.transitions
    transitions = dataclasses.replace(
        graph, indptr=share(graph.indptr), neighbours=share(graph.neighbours), weights=share(graph.weights)
    )
    tensors = {name: share(tensor) for name, tensor in stored.tensors.items()}
    ranker = dataclasses.replace(stored, tensors=tensors, popularity=share(stored.popularity), transitions=transitions)
    return dataclasses.replace(bundle, ranker=ranker)


def _require_same_encoder(bundle: Bundle, store: EmbeddingStore) -> None:
    """Vectors of several encoders may stand side by side; the bundle's own must be among them."""
    known = [encoder.fingerprint for encoder in store.encoders()]
    if bundle.fingerprint and known and bundle.fingerprint not in known:
        held = ", ".join(fingerprint[:FINGERPRINT_SHOWN] for fingerprint in known)
        raise ArtefactError(
            f"the store {store.path} holds vectors of encoder {held}, "
            f"the bundle {bundle.path} stands on encoder {bundle.fingerprint[:FINGERPRINT_SHOWN]}",
            "run `llmgr embed` with the engine of this bundle, or serve the bundle that belongs to the store",
        )


def _require_every_vector(bundle: Bundle, store: EmbeddingStore) -> None:
    """A new language model is served when every item has its vector of it, and not before."""
    with store.transaction() as transaction:
        following = metadata.read_next(transaction, store.database("meta"))
    if bundle.fingerprint and bundle.fingerprint == following:
        raise ArtefactError(
            f"{len(store.missing_vectors(following))} items of the store {store.path} have no vector yet of encoder "
            f"{following[:FINGERPRINT_SHOWN]}, which the bundle {bundle.path} stands on",
            "the embedding server is at work on them; a ranking server takes the bundle over as soon as they have",
        )


def _runtime(bundle: Bundle, store: EmbeddingStore | None) -> RankerRuntime:
    parts = bundle.parts
    known = set() if store is None else {encoder.fingerprint for encoder in store.encoders()}
    if store is None or bundle.fingerprint is None or bundle.fingerprint not in known:
        # An empty store, or a bundle without text: the change log alone (deletions, first inserts) brings the rows up to date.
        return RankerRuntime(parts)
    state = store.snapshot(bundle.fingerprint, parts.item_ids)
    ours, new = slice(parts.num_items), range(parts.num_items, len(state.item_ids))
    runtime = RankerRuntime(parts, state.vectors[ours], state.present[ours], state.sequence)
    changes = [RowChange(state.item_ids[place], state.vectors[place]) for place in new if state.present[place]]
    changes += [RowChange(state.item_ids[place], removed=True) for place in np.flatnonzero(state.deleted)]
    runtime.apply(changes, state.sequence)
    return runtime
