"""The online ranker together with what its rows are made of, as one module to optimise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

import kernels
from llmgr_core.graphs import SessionBatch
from llmgr_core.ranker.item_transform import ItemTransform
from llmgr_core.ranker.online import OnlineRanker
from llmgr_core.ranker.whitening import Whitening
from llmgr_core.settings.distil import DistilSettings
from llmgr_core.settings.encoder import EncoderSettings


@dataclass(frozen=True)
class TextVectors:
    """Text vectors of a catalogue.

    Attributes:
        vectors: e_v, float16 [V, D].
        present: bool [V].
        fingerprint: of the encoder that made them.
        below: items with so many training clicks were left without (``takes_text``); 0: none was.
        missing: how many other items have text but no vector yet.
    """

    vectors: npt.NDArray[np.float16]
    present: npt.NDArray[np.bool_]
    fingerprint: str
    below: int = 0
    missing: int = 0


class Student(nn.Module):
    """OnlineRanker with an ItemTransform (none for the ID-only variant) and the fixed inputs of its rows.

    Items without a training click have no ID vector; they are left out of the softmax while training, since they would only
    ever appear there as wrong answers.

    Args:
        has_id: bool [V], items with a training click.
        encoder: encoder settings.
        settings: of the ranker.
        text: text vectors, or None.
    """

    has_id: Tensor
    has_text: Tensor
    whitened: Tensor
    trained: Tensor
    place: Tensor

    def __init__(
        self, has_id: npt.NDArray[np.bool_], encoder: EncoderSettings, settings: DistilSettings, text: TextVectors | None
    ) -> None:
        super().__init__()
        self.online = OnlineRanker(len(has_id), encoder, settings.head_hidden)
        self.transform: ItemTransform | None = None
        with_id = has_id if settings.controls.ids else np.zeros_like(has_id)
        self.register_buffer("has_id", torch.from_numpy(with_id.copy()), persistent=False)
        self.register_buffer("trained", torch.from_numpy(np.flatnonzero(has_id)), persistent=False)
        self.register_buffer("place", torch.from_numpy(np.cumsum(has_id) - 1), persistent=False)
        if text is not None:
            fitted_on = text.vectors[has_id & text.present]
            whitening = Whitening.fit(fitted_on, settings.text_rank, settings.whitening)
            self.transform = ItemTransform(whitening, encoder.dimension, settings.text_dropout, settings.id_dropout)
            whitened = np.where(text.present[:, None], whitening.apply(text.vectors), np.float32(0.0))
            self.register_buffer("whitened", torch.from_numpy(whitened), persistent=False)
            self.register_buffer("has_text", torch.from_numpy(text.present.copy()), persistent=False)

    @property
    def rankable(self) -> Tensor:
        """bool [V], items with an ID vector or text."""
        return self.has_id if self.transform is None else self.has_id | self.has_text

    def rows(self) -> Tensor:
        """c_v of all items, float [V, d]; drawn anew under dropout while training."""
        if self.transform is None:
            return self.online.id_table * self.has_id[:, None]
        rows: Tensor = self.transform(self.online.id_table, self.has_id, self.whitened, self.has_text)
        return rows

    def loss(self, rows: Tensor, session_vectors: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy over the items with training clicks."""
        if len(self.trained) < len(rows):
            rows, targets = kernels.item_rows(rows, self.trained), self.place[targets]
        return self.online.logits.loss(session_vectors, rows, targets)

    def scores(self, rows: Tensor, batch: SessionBatch) -> Tensor:
        """Logits float [B, V]; minus infinity for items that cannot be ranked."""
        scores = self.online.scores(rows, batch)
        return scores if bool(self.rankable.all()) else scores.masked_fill(~self.rankable, -torch.inf)
