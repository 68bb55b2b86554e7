"""Which items lend their transitions to an item that has none: its nearest neighbours by whitened text vector."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from llmgr_core.ranker.folded_transform import SMALLEST_NORM
from llmgr_core.ranker.whitening import Whitening
from llmgr_core.settings.transitions import TransitionSettings
from llmgr_core.transitions import TransitionGraph
from llmgr_core.transitions.borrowing import BorrowedTransitions, Loan

FILE_NAME = "text_lenders.safetensors"


@dataclass(frozen=True)
class TextLenders:
    """Text of the items with training clicks, as it was when the ranker was trained.

    S[v, u] = cos(u_v, u_u)^sharpness over the nearest lenders u of v, divided by the sum. It is fixed with the ranker: what an
    item borrows depends on its own text and on nothing that a store holds, so that evaluation and every server agree.

    Attributes:
        whitening: the first directions of the ranker's own.
        items: int64 [L], item indices, ascending.
        directions: float32 [L, r], u_u / |u_u| rounded to float16.
    """

    whitening: Whitening
    items: npt.NDArray[np.int64]
    directions: npt.NDArray[np.float32]

    @classmethod
    def collect(
        cls, whitening: Whitening, vectors: npt.NDArray[np.floating], lending: npt.NDArray[np.bool_], rank: int
    ) -> TextLenders:
        """Keep what finding neighbours needs.

        Args:
            whitening: of the ranker; its first ``rank`` directions are used.
            vectors: e_v, [V, D].
            lending: bool [V], items with training clicks and text.
            rank: r.
        """
        narrow = Whitening(whitening.centre, np.ascontiguousarray(whitening.basis[:, :rank]))
        items = np.flatnonzero(lending)
        return cls(narrow, items, _unit(narrow.apply(vectors[items])).astype(np.float16).astype(np.float32))

    def loan(self, vector: npt.NDArray[np.floating], settings: TransitionSettings) -> Loan:
        """Of whom an item with this text vector [D] borrows; the same bits for the same vector, alone or among others.

        Equally near ones: the lower item index goes first.
        """
        whitened = self.whitening.apply(vector[None])
        cosines = self.directions @ _unit(whitened)[0]
        count = min(settings.text_neighbours, len(cosines))
        if count == 0:
            return Loan(self.items[:0], cosines[:0])
        near = np.flatnonzero(cosines >= max(np.partition(cosines, -count)[-count], np.finfo(np.float32).tiny))
        near = np.sort(near[np.argsort(-cosines[near], kind="stable")[:count]])
        weights = cosines[near] ** np.float32(settings.text_sharpness)
        return Loan(self.items[near], weights / max(weights.sum(), np.finfo(np.float32).tiny))

    def lend(
        self, graph: TransitionGraph, vectors: npt.NDArray[np.floating], borrowing: npt.NDArray[np.bool_]
    ) -> BorrowedTransitions:
        """The graph with the loans of all ``borrowing`` items (bool [V]) of the catalogue, by their text vectors e_v [V, D]."""
        loans = {int(item): self.loan(vectors[item], graph.settings) for item in np.flatnonzero(borrowing)}
        return BorrowedTransitions(graph).with_loans(loans)

    def fits(self, num_items: int, text_dimension: int) -> bool:
        """Whether these are the lenders of a ranker of so many items, and text vectors of this length."""
        inside = not len(self.items) or (int(self.items.min()) >= 0 and int(self.items.max()) < num_items)
        shapes = (self.items.shape[0], self.whitening.rank), (text_dimension, self.whitening.rank), (text_dimension,)
        return inside and shapes == (self.directions.shape, self.whitening.basis.shape, self.whitening.centre.shape)

    def write(self, directory: Path) -> None:
        """Write ``text_lenders.safetensors`` into an existing directory."""
        tensors: dict[str, npt.NDArray[np.generic]] = {
            "centre": self.whitening.centre,
            "basis": self.whitening.basis,
            "items": self.items,
            "directions": self.directions.astype(np.float16),
        }
        save_file(tensors, directory / FILE_NAME)

    @classmethod
    def read(cls, directory: Path) -> TextLenders:
        """Read what ``write`` wrote.

        Raises:
            OSError, KeyError, SafetensorError: no such file, or a damaged one.
        """
        tensors = load_file(directory / FILE_NAME)
        whitening = Whitening(tensors["centre"], tensors["basis"])
        return cls(whitening, tensors["items"], tensors["directions"].astype(np.float32))


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    unit: npt.NDArray[np.float32] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), SMALLEST_NORM)
    return unit
