"""The training loop that pre-training and distillation share: epochs, early stopping, checkpoints, resume."""

from trainer.catalogue_training.run import CatalogueTraining, TrainingOutcome

__all__ = ["CatalogueTraining", "TrainingOutcome"]
