"""Pre-training of the ID-only backbone: next item of every training prefix, softmax over the whole catalogue."""

from trainer.pretrain.recipe import Pretraining

__all__ = ["Pretraining"]
