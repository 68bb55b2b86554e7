"""The item transform as serving applies it: one affine map from a stored text vector to the text part of a row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llmgr_core.errors import InputError

SMALLEST_NORM = 1e-6
# Small enough that the memory of one block serves the next one, too.
ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class FoldedTransform:
    """(x_v or none, e_v or none) -> c_v.

    Centring, whitening and the linear map are folded into one matrix A and one vector a:

        t_v = A^T (e_v / |e_v|) + a        c_v = x_v + t_v    with both parts
        c_v = x_v                          without a text vector
        c_v = s t_v                        without an ID vector (a brand-new item)

    Attributes:
        matrix: A, float32 [D, d].
        offset: a, float32 [d].
        text_only_scale: s, learned while ID vectors were dropped in training.
    """

    matrix: npt.NDArray[np.float32]
    offset: npt.NDArray[np.float32]
    text_only_scale: float

    @property
    def vector_dimension(self) -> int:
        """D, length of the text vectors."""
        return int(self.matrix.shape[0])

    def text_part(self, vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """t_v of text vectors, [n, D] -> float32 [n, d]."""
        raw = vectors.astype(np.float32)
        norms = np.sqrt(np.einsum("ij,ij->i", raw, raw))
        raw /= np.maximum(norms, SMALLEST_NORM)[:, None]
        parts: npt.NDArray[np.float32] = raw @ self.matrix + self.offset
        return parts

    def row(
        self, id_vector: npt.NDArray[np.float32] | None, vector: npt.NDArray[np.floating] | None
    ) -> npt.NDArray[np.float32] | None:
        """c_v of one item, float32 [d]; None for an item with neither part.

        Raises:
            InputError: the text vector has another length, or a number in it is not finite.
        """
        if vector is None:
            return id_vector
        self.require_usable(vector)
        text = self.text_part(vector[None])[0]
        row: npt.NDArray[np.float32] = np.float32(self.text_only_scale) * text if id_vector is None else id_vector + text
        return row

    def rows(
        self,
        id_vectors: npt.NDArray[np.float32],
        has_id: npt.NDArray[np.bool_],
        vectors: npt.NDArray[np.floating] | None,
        has_text: npt.NDArray[np.bool_],
    ) -> npt.NDArray[np.float32]:
        """c_v of many items; those without an ID vector get the very bits that ``row`` gives them.

        Args:
            id_vectors: x_v, float32 [n, d]; rows without ``has_id`` are not read.
            has_id: bool [n].
            vectors: e_v, [n, D], or None where no item has text; rows without ``has_text`` are not read.
            has_text: bool [n].

        Returns:
            float32 [n, d]; zeros for items with neither part.

        Raises:
            InputError: a text vector that is read has another length, or a number in it is not finite.
        """
        rows = np.where(has_id[:, None], id_vectors, np.float32(0.0))
        if vectors is None:
            return rows
        for start in range(0, len(rows), ROWS_AT_ONCE):
            block = slice(start, start + ROWS_AT_ONCE)
            places = start + np.flatnonzero(has_text[block])
            self.require_usable(vectors[places])
            with_id = places[has_id[places]]
            rows[with_id] += self.text_part(vectors[with_id])
            # One at a time: a product of many rows may round otherwise than that of one, and a new item's row is one row
            # everywhere, bit for bit.
            for place in places[~has_id[places]]:
                rows[place] = np.float32(self.text_only_scale) * self.text_part(vectors[place : place + 1])[0]
        return rows

    def require_usable(self, vectors: npt.NDArray[np.floating]) -> None:
        """Refuse text vectors that no row can be made of.

        Raises:
            InputError: another length than D, or a number that is not finite.
        """
        if vectors.shape[-1] != self.vector_dimension:
            raise InputError(
                f"a text vector has {vectors.shape[-1]} numbers, this ranker expects {self.vector_dimension}",
                "use the engine that the ranker was distilled with",
            )
        if not np.isfinite(vectors).all():
            raise InputError("a text vector holds NaN or an infinity")
