"""Scoring with top-k in plain torch operations."""

from kernels.score_topk.reference import score_topk_reference as score_topk_torch

__all__ = ["score_topk_torch"]
