"""Experiments: rows of settings from a file, trained where nobody has yet, ranked, and compared."""

from trainer.experiments.definition import Experiment, Row, find_experiment
from trainer.experiments.experiment import Conduct, conduct

__all__ = ["Conduct", "Experiment", "Row", "conduct", "find_experiment"]
