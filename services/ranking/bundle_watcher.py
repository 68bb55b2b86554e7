"""The thread that notices a new bundle, or another store, and has it served."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from llmgr_core.artefacts.manifest import MANIFEST_NAME
from llmgr_core.settings.ann import AnnSettings
from services.ranking.array_directory import SharedArrays
from services.ranking.current_ranker import CurrentRanker
from services.ranking.live_ranker import Device, LiveRanker, store_identity
from services.ranking.metrics import RankingMetrics
from services.ranking.own_core import OwnCore
from services.server.interpreter import in_the_background

SECONDS_BEFORE_RETRY = 10.0
LONGEST_JOIN_SECONDS = 5.0

log = structlog.get_logger(service="ranking")

Signature = tuple[tuple[int, int] | None, tuple[int, int] | None]


def signature_of(bundle_path: Path, store_path: Path) -> Signature:
    """What changes when another bundle or another store takes the place of this one; ask before opening them."""
    bundle: tuple[int, int] | None
    try:
        status = (bundle_path / MANIFEST_NAME).stat()
        bundle = (status.st_ino, status.st_mtime_ns)
    except OSError:
        bundle = None
    return bundle, store_identity(store_path)


class BundleWatcher(threading.Thread):
    """Loads what took the place of the served bundle or store, beside the old one, and exchanges them between two requests.

    What cannot be served (a changed byte, vectors of another model) is refused and logged; the old one goes on, and the new one
    is tried again after a while, for its store may follow.

    Args:
        current: what answers.
        bundle_path, store_path: where to look.
        served: signature_of both, asked before they were opened.
        poll_seconds: how often to look.
        metrics: counts loads.
        device: where sessions are ranked.
        arrays: where rows and weights are held; see LiveRanker.open.
        ann: approximate search; see LiveRanker.open.
        own_core: the core that rankings run on; loading steps back there.
    """

    def __init__(
        self,
        current: CurrentRanker,
        bundle_path: Path,
        store_path: Path,
        *,
        served: Signature,
        poll_seconds: float,
        metrics: RankingMetrics,
        device: Device = "cpu",
        arrays: SharedArrays | None = None,
        ann: AnnSettings | None = None,
        own_core: OwnCore | None = None,
    ) -> None:
        super().__init__(name="bundle-watcher", daemon=True)
        self._current = current
        self._bundle_path = bundle_path
        self._store_path = store_path
        self._poll_seconds = poll_seconds
        self._metrics = metrics
        self._device = device
        self._arrays = arrays
        self._ann = ann
        self._own_core = own_core or OwnCore()
        self._stopped = threading.Event()
        self._exchanging = threading.Lock()
        self.keeps_previous = False
        self.previous: LiveRanker | None = None
        self._served = served
        self._refused: Signature | None = None
        self._retry_at = 0.0

    def run(self) -> None:
        self._own_core.step_back()
        while not self._stopped.wait(self._poll_seconds):
            self.look()

    def stop(self) -> None:
        """End the thread and wait for it; one that is in the middle of loading ends with the process."""
        self._stopped.set()
        if self.is_alive():
            self.join(LONGEST_JOIN_SECONDS)
        if self.previous is not None:
            self.previous.close()

    @property
    def refusing(self) -> bool:
        """Whether what stands there was refused."""
        return self._refused is not None

    def look(self, *, at_once: bool = False) -> bool:
        """Serve what stands there now if it is not what is served; returns whether it was exchanged.

        Args:
            at_once: try what was refused again without waiting.
        """
        with self._exchanging:
            return self._look(at_once)

    def roll_back(self) -> bool:
        """Serve what was served before, if it was kept, until something new stands there; a second call goes forward again."""
        with self._exchanging:
            if self.previous is None:
                return False
            self.previous = self._current.exchange(self.previous, whatever_the_store=True)
            log.warning("bundle_rolled_back", before=self.previous.version, now=self._current.ranker.version)
            return True

    def _look(self, at_once: bool) -> bool:
        signature = signature_of(self._bundle_path, self._store_path)
        # None: between two renames, or taken away; what is served stays.
        if signature == self._served or signature[0] is None or (signature[1] is None and self._served[1] is not None):
            self._refused = None
            return False
        if signature == self._refused and time.monotonic() < self._retry_at and not at_once:
            return False
        same_bundle, same_store = signature[0] == self._served[0], signature[1] == self._served[1]
        try:
            with in_the_background():
                # What is served need not be what stands there: a rollback holds, whatever happens to the store.
                old = self._exchange(lambda: self._over_store(self._current.ranker) if same_bundle else self._opened())
                kept = self._kept(old, same_bundle=same_bundle, same_store=same_store)
        except Exception as error:
            if signature != self._refused:
                log.error("bundle_refused", path=str(self._bundle_path), error=str(error))
                self._metrics.bundle_loads.labels("refused").inc()
            self._refused, self._retry_at = signature, time.monotonic() + SECONDS_BEFORE_RETRY
            return False
        self._served, self._refused = signature, None
        self._metrics.bundle_loads.labels("served").inc()
        log.info("bundle_exchanged", before=old.version, now=self._current.ranker.version, sequence=self._current.sequence)
        before, self.previous = self.previous, kept
        for ranker in (before, old):
            if ranker is not None and ranker is not kept:
                ranker.close()
        return True

    def _kept(self, old: LiveRanker, *, same_bundle: bool, same_store: bool) -> LiveRanker | None:
        """The one bundle to go back to; over another store, where it can rank that one's catalogue."""
        if not self.keeps_previous:
            return None
        if same_store:
            return old
        if not same_bundle or self.previous is None:
            return None
        try:
            return self._over_store(self.previous)
        except Exception as error:
            log.warning("previous_bundle_dropped", version=self.previous.version, error=str(error))
            return None

    def _opened(self) -> LiveRanker:
        return LiveRanker.open(self._bundle_path, self._store_path, self._device, self._arrays, self._ann)

    def _over_store(self, ranker: LiveRanker) -> LiveRanker:
        """A ranker's bundle over the store that stands there now."""
        return LiveRanker.over(ranker.bundle, self._store_path, self._device, self._arrays, self._ann)

    def _exchange(self, opened: Callable[[], LiveRanker]) -> LiveRanker:
        ranker = opened()
        try:
            return self._current.exchange(ranker)
        except BaseException:
            ranker.close()
            raise
