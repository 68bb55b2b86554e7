"""Settings of section [distil]."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llmgr_core.settings.controls import ControlSettings
from llmgr_core.settings.encoder import EncoderSettings
from llmgr_core.settings.training import TrainingSettings

ID_PRIORS = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0)


class DistilSettings(TrainingSettings):
    """Section [distil]: training of the online ranker; TrainingSettings has the keys of the optimisation.

    Attributes:
        epoch_factor: ``epochs`` times this, the rate's decay with them; 2 is what a ranker and the one that taught it take
            together, patience allowing.
        start: "fresh" trains an encoder of its own (``encoder`` below); "backbone" goes on from the pre-trained one.
        encoder: the ranker's encoder where it starts fresh.
        head_hidden: width of the MLP head; 0 is no head.
        text_below: only items with fewer training clicks have text, others their ID alone; new items always have text. 0 gives
            every item its text.
        text_rank: directions of the whitened text vectors that are kept.
        whitening: 1 gives every direction the same variance, 0 leaves the spectrum as it is.
        text_dropout: share of the elements of the whitened text vectors dropped while training.
        id_dropout: share of the ID vectors dropped while training, so that text alone learns to rank an item.
        teacher: learn from a teacher (variant "fused" only).
        teacher_model: "llmgr" is the tuned LLMGR with its language model in the loop. "ranker", a control, is a ranker of the
            same settings that had no teacher: trained first, into RUN/ranker-teacher, where it does not stand there yet.
        teacher_examples: training prefixes the teacher ranks; 0 takes all. On a CPU each costs tens of milliseconds.
        teacher_top: items of the teacher's ranking that the student imitates.
        teacher_weight: lambda, weight of the imitation; only where the teacher ranks the target above the student.
        teacher_temperature: tau, softens both distributions.
        row_pull: mu, weight of 1 - cos(row of an item, its text vector through the teacher's W_p); needs start = "backbone".
        heldout_loss: share of NDCG@20 on held-out validation items that the transition term may cost at most.
        id_prior: values of kappa among which validation NDCG@20 chooses once the weights stand: an item's ID vector counts
            n / (n + kappa) beside its text, n its training clicks. With the one value 0 every ID vector counts whole.
        controls: for experiments, see ControlSettings.
    """

    epochs: int = Field(default=20, ge=1, le=10_000)
    epoch_factor: int = Field(default=1, ge=1, le=100)
    start: Literal["fresh", "backbone"] = "fresh"
    encoder: EncoderSettings = EncoderSettings(name="gcsan")
    head_hidden: int = Field(default=128, ge=0, le=8192)
    text_below: int = Field(default=0, ge=0)
    text_rank: int = Field(default=256, ge=1, le=4096)
    whitening: float = Field(default=1.0, ge=0.0, le=1.0)
    text_dropout: float = Field(default=0.2, ge=0.0, le=0.99)
    id_dropout: float = Field(default=0.1, ge=0.0, lt=1.0)
    teacher: bool = True
    teacher_model: Literal["llmgr", "ranker"] = "llmgr"
    teacher_examples: int = Field(default=8192, ge=0)
    teacher_top: int = Field(default=100, ge=2, le=1000)
    teacher_weight: float = Field(default=0.5, ge=0.0)
    teacher_temperature: float = Field(default=2.0, gt=0.0)
    row_pull: float = Field(default=0.0, ge=0.0)
    heldout_loss: float = Field(default=0.05, ge=0.0, le=1.0)
    id_prior: tuple[Annotated[float, Field(ge=0.0, le=1e6)], ...] = Field(default=ID_PRIORS, min_length=1, max_length=32)
    controls: ControlSettings = ControlSettings()
