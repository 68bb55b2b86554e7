"""Whitening of text vectors, fitted on the items of the training sessions alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llmgr_core.ranker.folded_transform import SMALLEST_NORM

# Directions with less than this share of the largest variance are noise of the fp16 store.
SMALLEST_SHARE = 1e-6


@dataclass(frozen=True)
class Whitening:
    """u_v = B^T (e_v / |e_v| - m), with B = V_r diag(sigma^-strength): r decorrelated numbers, the strongest first.

    The variance of u_v, summed over its r numbers, is r for the items it was fitted on: |u_v| ~ sqrt(r) for every engine.

    Attributes:
        centre: m, float32 [D].
        basis: B, float32 [D, r].
    """

    centre: npt.NDArray[np.float32]
    basis: npt.NDArray[np.float32]

    @property
    def rank(self) -> int:
        """r, numbers kept."""
        return int(self.basis.shape[1])

    @classmethod
    def fit(cls, vectors: npt.NDArray[np.floating], rank: int, strength: float) -> Whitening:
        """Fit on text vectors [n, D].

        Args:
            vectors: those of training items only.
            rank: r at most; fewer where the vectors span fewer directions.
            strength: 1 gives every direction the same variance, 0 leaves the spectrum as it is.

        Raises:
            ValueError: no vectors.
        """
        if not len(vectors):
            raise ValueError("whitening needs at least one text vector")
        unit = unit_length(vectors).astype(np.float64)
        centre = unit.mean(axis=0)
        covariance = (unit - centre).T @ (unit - centre) / len(unit)
        ascending, directions = np.linalg.eigh(covariance)
        variances = np.maximum(ascending[::-1], 1e-12)
        kept = min(rank, int((variances > SMALLEST_SHARE * variances[0]).sum()))
        variances = variances[:kept]
        basis = directions[:, ::-1][:, :kept] * variances ** (-strength / 2)
        basis *= np.sqrt(kept / (variances ** (1.0 - strength)).sum())
        return cls(centre.astype(np.float32), basis.astype(np.float32))

    def apply(self, vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """u_v of text vectors, [n, D] -> float32 [n, r]."""
        centred = unit_length(vectors)
        centred -= self.centre
        whitened: npt.NDArray[np.float32] = np.matmul(centred, self.basis, dtype=np.float32)
        return whitened


def unit_length(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """e_v / |e_v|, float32 [n, D]."""
    raw = vectors.astype(np.float32)
    raw /= np.maximum(np.sqrt(np.einsum("ij,ij->i", raw, raw)), SMALLEST_NORM)[:, None]
    return raw
