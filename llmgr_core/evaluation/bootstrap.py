"""Paired bootstrap: is the difference of two scorers more than luck of the examples?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
RESAMPLES_AT_ONCE = 100


@dataclass(frozen=True)
class PairedBootstrap:
    """Percentile intervals of mean differences, over all examples and inside groups of them.

    Both scorers are resampled together: a resample draws n examples with replacement and takes the mean of their
    per-example differences. One set of draws serves every metric and every group.

    Attributes:
        resamples: number of draws.
        confidence: share of the draws inside an interval.
        seed: seed of the draws; equal seeds draw equal examples.
    """

    resamples: int = 2000
    confidence: float = 0.95
    seed: int = 1

    @property
    def ends(self) -> tuple[float, float]:
        """The quantiles of the draws between which an interval lies."""
        tail = (1.0 - self.confidence) / 2
        return tail, 1.0 - tail

    def intervals(self, differences: Floats, groups: npt.NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
        """Mean difference and the ends of its interval.

        Args:
            differences: float64 [n, M], metric of one scorer minus that of the other, example by example.
            groups: bool [n, G], which examples each group holds.

        Returns:
            mean, low, high: float64 [G, M] each; NaN for a group without examples.
        """
        observed, means = self.resampled_means(differences, groups)
        low, high = np.full_like(observed, np.nan), np.full_like(observed, np.nan)
        for group in np.flatnonzero(groups.any(axis=0)):
            # a small group may be missing from a resample altogether
            low[group], high[group] = np.nanquantile(means[:, group], self.ends, axis=0)
        return observed, low, high

    def resampled_means(self, values: Floats, groups: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """Means of columns of figures that are resampled together, inside every group.

        Args:
            values: float64 [n, M], figures of each example.
            groups: bool [n, G], which examples each group holds.

        Returns:
            float64 [G, M], the means as observed, and float64 [resamples, G, M], those of every draw; NaN where a group has no
            example.
        """
        n, num_metrics = values.shape
        num_groups = groups.shape[1]
        member = groups.astype(np.float64)
        # columns: every metric inside every group, then the size of every group
        inside = (member[:, :, None] * values[:, None, :]).reshape(n, num_groups * num_metrics)
        columns = np.concatenate([inside, member], axis=1)
        generator = np.random.default_rng(self.seed)
        means = np.empty((self.resamples, num_groups, num_metrics))
        for start in range(0, self.resamples, RESAMPLES_AT_ONCE):
            many = min(RESAMPLES_AT_ONCE, self.resamples - start)
            drawn = generator.integers(0, max(n, 1), size=(many, n), dtype=np.int64)
            drawn += np.arange(many)[:, None] * n
            times = np.bincount(drawn.ravel(), minlength=many * n).reshape(many, n).astype(np.float64)
            means[start : start + many] = _group_means(times @ columns, num_groups, num_metrics)
        return _group_means(columns.sum(axis=0, keepdims=True), num_groups, num_metrics)[0], means


def bounded(end: float) -> float | None:
    """The end of an interval as a file holds it; None where no number bounds it."""
    return float(end) if np.isfinite(end) else None


def _group_means(sums: Floats, num_groups: int, num_metrics: int) -> Floats:
    sizes = sums[:, num_groups * num_metrics :, None]
    totals = sums[:, : num_groups * num_metrics].reshape(-1, num_groups, num_metrics)
    return np.divide(totals, sizes, out=np.full_like(totals, np.nan), where=sizes > 0)
