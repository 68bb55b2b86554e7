"""The item-to-item transition graph. A ranking host reads and looks it up with NumPy alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from llmgr_core.errors import ArtefactError
from llmgr_core.sessions import Sessions
from llmgr_core.settings.transitions import TransitionSettings
from llmgr_core.transitions.counting import count_transitions
from llmgr_core.transitions.lookup import ClickRows, Row, expand_clicks, sum_by_item

if TYPE_CHECKING:
    import torch

FILE_NAME = "transitions.safetensors"
NO_ROWS: Mapping[int, Row] = MappingProxyType({})


@dataclass(frozen=True)
class TransitionGraph:
    """W[a, b] = mass(a -> b) / (clicks(a)^alpha * clicks(b)^beta) over all training sessions, as CSR rows.

    The score of item v after prefix v_1 .. v_n is t(s, v) = sum_k click_decay^(n - k) * W[v_k, v].

    Attributes:
        settings: what it was built with.
        indptr: int64 [V + 1]; row a is ``neighbours[indptr[a]:indptr[a + 1]]``, ascending.
        neighbours: int32 [E].
        weights: float32 [E], W.
    """

    settings: TransitionSettings
    indptr: npt.NDArray[np.int64]
    neighbours: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]

    @property
    def num_items(self) -> int:
        return len(self.indptr) - 1

    @property
    def num_edges(self) -> int:
        return len(self.neighbours)

    @classmethod
    def build(cls, sessions: Sessions, num_items: int, settings: TransitionSettings) -> TransitionGraph:
        """Count the transitions of all sessions; every edge is kept (see ``pruned``)."""
        keys, mass = count_transitions(sessions, num_items, settings)
        source, target = np.divmod(keys, num_items)
        indptr = np.zeros(num_items + 1, dtype=np.int64)
        np.cumsum(np.bincount(source, minlength=num_items), out=indptr[1:])
        clicks = sessions.click_counts(num_items)
        weights = mass / (clicks[source] ** settings.source_damping * clicks[target] ** settings.target_damping)
        return cls(settings, indptr, target.astype(np.int32), weights.astype(np.float32))

    def pruned(self, neighbours: int | None = None) -> TransitionGraph:
        """Only the heaviest neighbours of each item (``settings.neighbours`` unless told; 0 keeps all): the form to serve.

        Ties go to the lower item index.
        """
        limit = self.settings.neighbours if neighbours is None else neighbours
        if limit == 0:
            return TransitionGraph(self.settings, self.indptr, self.neighbours, self.weights)
        lengths = np.diff(self.indptr)
        source = np.repeat(np.arange(self.num_items), lengths)
        order = np.lexsort((self.neighbours, -self.weights, source))
        rank = np.arange(self.num_edges) - np.repeat(self.indptr[:-1], lengths)
        kept = np.sort(order[rank < limit])
        indptr = np.zeros(self.num_items + 1, dtype=np.int64)
        np.cumsum(np.minimum(lengths, limit), out=indptr[1:])
        return TransitionGraph(self.settings, indptr, self.neighbours[kept], self.weights[kept])

    def scores(self, prefixes: Sessions) -> torch.Tensor:
        """t(s, v) of every item after each prefix: float32 [B, V], zero where nothing connects."""
        rows = expand_clicks(self.indptr, prefixes, self.settings)
        return self._dense(rows, self.weights[rows.edges] * rows.click_weights)

    def lookup(self, items: Sequence[int] | npt.NDArray[np.integer], instead: Mapping[int, Row] = NO_ROWS) -> Row:
        """t(s, v) of one session, sparse.

        Args:
            items: its clicks, oldest first; items the graph does not know (index out of range) lead nowhere.
            instead: rows that stand for those of the graph, by item index; of items beyond it too.

        Returns:
            item indices int32 [m], ascending and distinct, and their scores float32 [m].
        """
        neighbours, weights = [], []
        factor = 1.0
        for click in reversed(items[-self.settings.clicks :]):
            item = int(click)
            row = instead.get(item)
            if row is None and 0 <= item < self.num_items:
                row = self.row(item)
            if row is not None:
                neighbours.append(row[0])
                weights.append(row[1] * np.float32(factor))
            factor *= self.settings.click_decay
        return sum_by_item(neighbours, weights)

    def row(self, item: int) -> Row:
        """Where an item of the graph leads: indices int32 [m], ascending, and W float32 [m]."""
        edges = slice(self.indptr[item], self.indptr[item + 1])
        return self.neighbours[edges], self.weights[edges]

    def save(self, directory: Path) -> None:
        """Write ``transitions.safetensors`` into an existing directory."""
        tensors: dict[str, npt.NDArray[np.generic]] = {
            "indptr": self.indptr,
            "neighbours": self.neighbours,
            "weights": self.weights,
        }
        save_file(tensors, directory / FILE_NAME, metadata={"settings": json.dumps(self.settings.model_dump())})

    @classmethod
    def load(cls, directory: Path) -> TransitionGraph:
        """Read what ``save`` wrote.

        Raises:
            ArtefactError: the file is missing or damaged.
        """
        path = directory / FILE_NAME
        try:
            with safe_open(path, framework="numpy") as stream:
                settings = TransitionSettings.model_validate_json((stream.metadata() or {})["settings"])
                tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
            return cls(settings, **tensors)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ArtefactError(f"{path} holds no usable transition graph: {error}", "make the directory again") from None

    def _dense(self, rows: ClickRows, values: npt.NDArray[np.floating]) -> torch.Tensor:
        import torch

        size = rows.num_prefixes * self.num_items
        places = rows.prefix * self.num_items + self.neighbours[rows.edges]
        total = np.bincount(places, weights=values, minlength=size).astype(np.float32)
        return torch.from_numpy(total).view(rows.num_prefixes, self.num_items)
