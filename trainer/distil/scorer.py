"""The online ranker as evaluation sees it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from llmgr_core.graphs import SessionBatch
from llmgr_core.ranker.online import OnlineRanker
from llmgr_core.ranker.stored import StoredRanker
from llmgr_core.sessions import Examples
from llmgr_core.transitions import TransitionGraph
from llmgr_core.transitions.borrowing import BorrowedTransitions


class RankerScorer:
    """Calibrated scores (logit + w log(1 + c t(s, v))) / temperature of every item, as serving computes them.

    Args:
        stored: a trained ranker.
        vectors: text vectors e_v, float16 [V, D]; None for the ID-only variant.
        present: bool [V], which items have one; None means all.
        with_transitions: False leaves the transition term out, so that a table can show what it adds.
        name: name of its row in tables; by default the variant.
        device: where sessions are encoded and compared with items; scores come back to the host.

    Raises:
        InputError: vectors that do not fit the ranker.
    """

    # softmax of the scores is meant as p(v | s); the evaluation measures how true that is
    calibrated = True

    def __init__(
        self,
        stored: StoredRanker,
        vectors: npt.NDArray[np.floating] | None = None,
        present: npt.NDArray[np.bool_] | None = None,
        *,
        with_transitions: bool = True,
        name: str | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        description = stored.description
        self.name = name or ("ranker " + description.variant + ("" if with_transitions else ", no transitions"))
        self._scoring = description.scoring
        self._max_clicks = description.encoder.max_clicks
        self._model = OnlineRanker.from_stored(stored).to(device)
        rankable = stored.has_id
        graph: TransitionGraph | BorrowedTransitions = stored.transitions
        rows = np.where(rankable[:, None], stored.id_vectors, np.float32(0.0))
        if stored.transform is not None and vectors is not None:
            has_text = stored.takes_text if present is None else present & stored.takes_text
            rows = stored.transform.rows(stored.id_vectors, stored.has_id, vectors, has_text)
            rankable = rankable | has_text
            if stored.lenders is not None:
                graph = stored.lenders.lend(stored.transitions, vectors, (stored.popularity == 0) & has_text)
        self._graph = graph if with_transitions and self._scoring.transition_weight else None
        self._rows = torch.from_numpy(rows).to(device)
        self._unrankable = torch.from_numpy(np.flatnonzero(~rankable))

    @torch.inference_mode()
    def scores(self, examples: Examples) -> Tensor:
        """float32 [B, V]; minus infinity for items with neither an ID vector nor text."""
        batch = SessionBatch.from_sessions(examples.prefixes(self._max_clicks), device=self._rows.device)
        scores = self._model.scores(self._rows, batch).float().cpu()
        if self._graph is not None:
            terms = self._graph.scores(examples.prefixes(self._graph.settings.clicks))
            scores += terms.mul_(self._scoring.transition_slope).log1p_().mul_(self._scoring.transition_weight)
        scores /= self._scoring.temperature
        return scores.index_fill_(1, self._unrankable, -torch.inf)
