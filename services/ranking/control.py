"""A ranking server as operators see it."""

from __future__ import annotations

from collections.abc import Callable

from services.admin.service import ServedState
from services.ranking.bundle_watcher import BundleWatcher
from services.ranking.current_ranker import CurrentRanker


class RankingControl:
    """What AdminService does to a ranking server; rolling back keeps the bundle before the served one in memory.

    Args:
        current: what answers.
        watcher: exchanges it.
        drain: says NOT_SERVING, or SERVING again.
    """

    def __init__(self, current: CurrentRanker, watcher: BundleWatcher, drain: Callable[[bool], None]) -> None:
        self._current = current
        self._watcher = watcher
        self._drain = drain
        self._draining = False
        watcher.keeps_previous = True

    def state(self) -> ServedState:
        """What is served now."""
        ranker, previous = self._current.ranker, self._watcher.previous
        return ServedState(
            version=ranker.version,
            previous="" if previous is None else previous.version,
            sequence=self._current.sequence,
            items=ranker.snapshot.num_rankable,
            draining=self._draining,
        )

    def reload(self) -> bool | None:
        """Look for another bundle or store now; None where what stands there was refused."""
        exchanged = self._watcher.look(at_once=True)
        return None if self._watcher.refusing else exchanged

    def roll_back(self) -> bool:
        """Serve what was served before; False where there is nothing."""
        return self._watcher.roll_back()

    def drain(self, draining: bool) -> None:
        """Say NOT_SERVING, or SERVING again."""
        self._draining = draining
        self._drain(draining)
