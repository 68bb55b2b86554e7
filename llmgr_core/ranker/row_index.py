"""An inverted-file index over item rows: looks into the cells nearest to a query instead of at every row.

J. Sivic and A. Zisserman, "Video Google", 2003; here by faiss (M. Douze et al., "The Faiss library", arXiv:2401.08281), with
rows in half precision: what it finds is scored again from the float32 rows.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from llmgr_core.errors import LlmgrError
from llmgr_core.ranker.item_rows import BLOCK_ROWS, ItemRows
from llmgr_core.ranker.whitening import unit_length

# Centroids are learned from so many rows each; more change little and take longer.
TRAINING_ROWS_PER_CELL = 40
TRAINING_ROUNDS = 8


class RowIndex:
    """Finds rows of large inner product (or cosine); immutable once built.

    Args:
        rows: float32 rows of n items.
        cosine: compare directions alone.
        probes: cells that are looked into.

    Raises:
        LlmgrError: faiss is not installed.
    """

    def __init__(self, rows: ItemRows, *, cosine: bool, probes: int) -> None:
        faiss = _faiss()
        self.count = rows.count
        self.cells = max(min(int(4 * math.sqrt(rows.count)), rows.count // TRAINING_ROWS_PER_CELL), 1)
        self._index = faiss.index_factory(rows.dimension, f"IVF{self.cells},SQfp16", faiss.METRIC_INNER_PRODUCT)
        self._index.by_residual = False
        self._probes = faiss.SearchParametersIVF(nprobe=min(probes, self.cells))
        self._index.cp.niter = TRAINING_ROUNDS
        self._index.cp.max_points_per_centroid = TRAINING_ROWS_PER_CELL
        # Counts for this thread alone: a request's thread must not wait for others.
        faiss.omp_set_num_threads(1)
        sample = np.random.default_rng(0).permutation(rows.count)[: self.cells * TRAINING_ROWS_PER_CELL]
        self._index.train(_points(rows, np.sort(sample), cosine))
        for start in range(0, rows.count, BLOCK_ROWS):
            self._index.add(_points(rows, np.arange(start, min(start + BLOCK_ROWS, rows.count)), cosine))

    def looking_into(self, probes: int) -> RowIndex:
        """The same index, with another number of cells looked into."""
        other = copy.copy(self)
        other._probes = _faiss().SearchParametersIVF(nprobe=min(probes, self.cells))
        return other

    def search(self, query: npt.NDArray[np.float32], most: int) -> npt.NDArray[np.int64]:
        """Indices int64 [m <= most] of the rows nearest to a query float32 [d] in the cells that are looked into."""
        found: npt.NDArray[np.int64] = self._index.search(query[None], most, params=self._probes)[1][0]
        return found[found >= 0]


def _points(rows: ItemRows, indices: npt.NDArray[np.int64], cosine: bool) -> npt.NDArray[np.float32]:
    """What is indexed of these rows, float32 [m, d]."""
    vectors = rows.vectors(indices)
    return np.ascontiguousarray(unit_length(vectors) if cosine else vectors)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise LlmgrError("serve.ann is enabled, but faiss is not installed", "pip install '.[serve,ann]'") from None
    return faiss
