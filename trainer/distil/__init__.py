"""Distillation: training of the online ranker, its transition weight, its temperature, and how it is evaluated."""

from trainer.distil.recipe import Distillation, Tutoring
from trainer.distil.scorer import RankerScorer

__all__ = ["Distillation", "RankerScorer", "Tutoring"]
