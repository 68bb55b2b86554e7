"""Evaluation: full ranking, expected rank under ties, buckets by training count, paired bootstrap intervals."""

from llmgr_core.evaluation.bootstrap import PairedBootstrap
from llmgr_core.evaluation.buckets import BUCKETS, bucket_of
from llmgr_core.evaluation.calibration import expected_calibration_error
from llmgr_core.evaluation.evaluate import Ranks, evaluate
from llmgr_core.evaluation.metrics import METRICS, per_example_metrics, summarise
from llmgr_core.evaluation.protocol import protocol
from llmgr_core.evaluation.ranks import expected_ranks
from llmgr_core.evaluation.scorers import BackboneScorer, FloorScorer, PopularityScorer, Scorer

__all__ = [
    "BUCKETS",
    "METRICS",
    "BackboneScorer",
    "FloorScorer",
    "PairedBootstrap",
    "PopularityScorer",
    "Ranks",
    "Scorer",
    "bucket_of",
    "evaluate",
    "expected_calibration_error",
    "expected_ranks",
    "per_example_metrics",
    "protocol",
    "summarise",
]
