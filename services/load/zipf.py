"""The Zipf-Mandelbrot law of ranks and of lengths: p(r) proportional to (r + q)^-s for r = 1 .. n (Mandelbrot, 1953)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FINEST = 1e-3
SHIFTS = np.concatenate([[0.0], np.geomspace(0.05, 2000.0, 40)])
EXPONENTS = np.linspace(0.0, 6.0, 25)


@dataclass(frozen=True)
class ZipfLaw:
    """Probabilities of 1 .. n.

    Attributes:
        exponent: s.
        shift: q, which flattens the head.
        size: n.
    """

    exponent: float
    shift: float
    size: int

    def probabilities(self) -> npt.NDArray[np.float64]:
        """float64 [n], of 1 .. n."""
        weights = (np.arange(1, self.size + 1) + self.shift) ** -self.exponent
        shares: npt.NDArray[np.float64] = weights / weights.sum()
        return shares

    @classmethod
    def fitted(cls, counts: npt.NDArray[np.integer]) -> ZipfLaw:
        """The law under which these counts of 1 .. n are most likely.

        The likelihood is concave in s for a given q, so a coarse grid followed by ever finer ones around the best finds it.

        Args:
            counts: int [n]; for popularity sorted in descending order, for lengths how many sessions have each length.
        """
        size = len(counts)
        observed = counts.astype(np.float64)
        places = np.arange(1, size + 1, dtype=np.float64)
        best = (-np.inf, 0.0, 0.0)
        shifts, exponents = SHIFTS, EXPONENTS
        width = float(EXPONENTS[1] - EXPONENTS[0])
        while width > FINEST:
            for shift in shifts:
                logs = np.log(places + shift)
                weighted = float(observed @ logs)
                for exponent in exponents:
                    mass = float(np.exp(-exponent * logs).sum())
                    likelihood = -exponent * weighted - observed.sum() * np.log(mass)
                    best = max(best, (float(likelihood), float(exponent), float(shift)))
            _, exponent, shift = best
            width /= 4.0
            exponents = np.maximum(exponent + width * np.arange(-4, 5), 0.0)
            shifts = np.maximum(shift * (1.0 + width * np.arange(-4, 5)), 0.0) if shift else np.array([0.0, 0.01, 0.02])
        return cls(round(best[1], 4), round(best[2], 4), size)
