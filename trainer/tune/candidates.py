"""Candidates: hard ones for the auxiliary task, random ones for a stage 2 that does not see the whole catalogue."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

NEAREST = 20


class HardCandidates:
    """Draws candidates: items of the same brand, of the same category, of the nearest text, and random ones, in equal shares.

    Where a source has too few items, random ones fill up. Only items with clicks in training are ever drawn: the ID vectors of
    others hold nothing to recognise.

    Args:
        pool: int64 [n], items that may be drawn.
        brand_codes, category_codes: int32 [V], -1 for none.
        vectors: float32 [n, D], untuned text vectors of the pool, zeros for items without text.
    """

    def __init__(
        self,
        pool: npt.NDArray[np.int64],
        brand_codes: npt.NDArray[np.int32],
        category_codes: npt.NDArray[np.int32],
        vectors: npt.NDArray[np.float32],
    ) -> None:
        self.pool = pool
        self._place = {int(item): place for place, item in enumerate(pool)}
        self._groups = [_Groups(pool, codes[pool]) for codes in (brand_codes, category_codes)]
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        self._directions = vectors / np.maximum(norms, 1e-12)

    def draw(self, items: npt.NDArray[np.int64], count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """int64 [B, count]: each row holds its item once, at a random place, and other items, none twice.

        Raises:
            ValueError: the pool has fewer than ``count`` items.
        """
        if len(self.pool) < count:
            raise ValueError(f"{count} candidates cannot be drawn from {len(self.pool)} items")
        places = [self._place[int(item)] for item in items]
        nearest = self._nearest(places)
        drawn = np.empty((len(items), count), dtype=np.int64)
        share = max((count - 1) // (len(self._groups) + 2), 1)
        for row, (item, place) in enumerate(zip(items.tolist(), places, strict=True)):
            chosen = {item: None}
            for source in (*(groups.others(place) for groups in self._groups), nearest[row]):
                taken = rng.permutation(source)[: share + 1].tolist()
                room = min(share, count - len(chosen))
                chosen.update(dict.fromkeys([other for other in taken if other not in chosen][:room]))
            while len(chosen) < count:
                missing = count - len(chosen)
                chosen.update(dict.fromkeys(rng.choice(self.pool, size=missing).tolist()))
            drawn[row] = rng.permutation(list(chosen))
        return drawn

    def _nearest(self, places: list[int]) -> npt.NDArray[np.int64]:
        similar = self._directions[places] @ self._directions.T
        similar[np.arange(len(places)), places] = -np.inf
        count = min(NEAREST, similar.shape[1] - 1)
        return self.pool[np.argpartition(-similar, count - 1, axis=1)[:, :count]]


def random_candidates(
    targets: npt.NDArray[np.int64], num_items: int, count: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """int64 [B, 1 + count]: each target, then ``count`` other items of the catalogue, none twice.

    A catalogue with fewer others gives all of them.
    """
    others = [rng.choice(num_items - 1, size=min(count, num_items - 1), replace=False) for _ in targets]
    drawn = np.array(others, dtype=np.int64).reshape(len(targets), -1)
    drawn += drawn >= targets[:, None]
    return np.concatenate([targets[:, None], drawn], axis=1)


class _Groups:
    """Items that share a code."""

    def __init__(self, pool: npt.NDArray[np.int64], codes: npt.NDArray[np.int32]) -> None:
        order = np.argsort(codes, kind="stable")
        self._codes = codes
        self._sorted_items, self._sorted_codes = pool[order], codes[order]

    def others(self, place: int) -> npt.NDArray[np.int64]:
        code = self._codes[place]
        if code < 0:
            return self._sorted_items[:0]
        first, last = np.searchsorted(self._sorted_codes, [code, code + 1])
        return self._sorted_items[first:last]
