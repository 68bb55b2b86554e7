"""What the trainings over the whole catalogue have in common."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from llmgr_core.settings.section import Section


class TrainingSettings(Section):
    """Settings of a training with cross-entropy over the whole catalogue.

    Attributes:
        epochs: at most so many passes over all training prefixes.
        patience: stop after so many epochs in a row without a better validation NDCG@20 (seen items masked).
        batch_size: prefixes a step.
        learning_rate: peak rate of AdamW; it decays along a cosine to a tenth over ``epochs``.
        warmup_steps: steps over which the rate rises to its peak.
        weight_decay: AdamW's.
        clip_norm: gradients longer than this are shortened to it; 0 leaves them.
        validation_examples: validation examples in use, evenly spread; 0 takes all.
        device: "auto" takes a CUDA device where there is one.
        checkpoint_minutes: a checkpoint at the end of each epoch, and in between whenever so many minutes have passed.
    """

    epochs: int = Field(default=25, ge=1, le=10_000)
    patience: int = Field(default=3, ge=1)
    batch_size: int = Field(default=512, ge=1, le=65536)
    learning_rate: float = Field(default=3e-3, gt=0.0)
    warmup_steps: int = Field(default=100, ge=0)
    weight_decay: float = Field(default=1e-2, ge=0.0)
    clip_norm: float = Field(default=5.0, ge=0.0)
    validation_examples: int = Field(default=0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    checkpoint_minutes: float = Field(default=1.0, gt=0.0)
