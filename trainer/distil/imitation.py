"""The part of the loss that comes from the teacher."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

import kernels
from llmgr_core.encoders.logits import ItemLogits
from trainer.distil.teacher_rankings import TeacherRankings

SMALLEST_NORM = 1e-6


class Imitation:
    """lambda tau^2 KL(teacher || student) over the teacher's best K items, where the teacher is the better one.

    The gate: only prefixes count for which the teacher ranks the target above the student's present rank of it. An LLM is worse
    than an ID model on many prefixes (DLLM2Rec, Cui et al., 2024), and nothing is to be learnt from it there.

    Args:
        rankings: the teacher's.
        num_examples: number of training prefixes.
        weight: lambda.
        temperature: tau.
    """

    def __init__(
        self, rankings: TeacherRankings, num_examples: int, weight: float, temperature: float, device: torch.device
    ) -> None:
        self.weight, self.temperature = weight, temperature
        # On the host, which so knows the prefixes with a ranking without asking the device.
        self._place = np.full(num_examples, -1, dtype=np.int64)
        self._place[rankings.examples] = np.arange(len(rankings))
        self._items = torch.from_numpy(rankings.items).to(device)
        self._logits = torch.from_numpy(rankings.logits).to(device)
        self._target_ranks = torch.from_numpy(rankings.target_ranks).to(device)

    def loss(
        self, logits: ItemLogits, session_vectors: Tensor, rows: Tensor, targets: Tensor, examples: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The weighted term, as a mean over the whole batch, and how many prefixes passed the gate; nothing waits for a device.

        Args:
            logits: the student's.
            session_vectors: z'_s, float [B, d].
            rows: c_v, float [V, d].
            targets: int64 [B].
            examples: int64 [B] on the CPU, places among the training prefixes.

        Returns:
            Both 0-d, on the device; the count is int64.
        """
        places = self._place[examples.numpy()]
        ranked = np.flatnonzero(places >= 0)
        if not len(ranked):
            return session_vectors.new_zeros(()), targets.new_zeros(())
        # An ordinary copy to a device would wait for all that is still to be done there.
        known, place = torch.from_numpy(np.stack([ranked, places[ranked]])).to(targets.device, non_blocking=True)
        session_vectors, targets = session_vectors[known], targets[known]
        better = self._teacher_is_better(logits, session_vectors, rows, targets, place)
        student = _logits_of(logits, session_vectors, rows, self._items[place].long())
        tau = self.temperature
        divergence = nn.functional.kl_div(
            (student / tau).log_softmax(dim=1), (self._logits[place].float() / tau).softmax(dim=1), reduction="none"
        )
        divergence = divergence.masked_fill(~better[:, None], 0.0).sum()
        return self.weight * tau**2 * divergence / len(examples), better.sum()

    def _teacher_is_better(
        self, logits: ItemLogits, session_vectors: Tensor, rows: Tensor, targets: Tensor, place: Tensor
    ) -> Tensor:
        return self._target_ranks[place] < kernels.target_rank(session_vectors, rows, targets, logits.cosine)


def _logits_of(logits: ItemLogits, session_vectors: Tensor, rows: Tensor, items: Tensor) -> Tensor:
    """The student's logits of chosen items: [B, d], [V, d], int64 [B, K] -> [B, K]."""
    chosen = kernels.item_rows(rows, items.flatten()).view(*items.shape, -1)
    if logits.cosine:
        session_vectors = nn.functional.normalize(session_vectors, dim=1, eps=SMALLEST_NORM) * logits.scale
        chosen = nn.functional.normalize(chosen, dim=2, eps=SMALLEST_NORM)
    return torch.einsum("bd,bkd->bk", session_vectors, chosen)
