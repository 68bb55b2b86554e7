"""The rows of all items, in blocks that are copied before they change."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BLOCK_ROWS = 8192
# So few rows, as those of a session, are copied faster than they are sorted by block.
PICKED_ONE_BY_ONE = 32
SMALLEST_NORM = 1e-6

Block = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class ItemRows:
    """c_v of every item as directions and lengths; immutable for its holder.

    Blocks are shared between versions. A version reads rows below its own ``count`` only, so new rows may be written into spare
    places of a shared block; a row that a version can see is changed in a copy of its block.

    Attributes:
        blocks: pairs (directions float32 [BLOCK_ROWS, d], lengths float32 [BLOCK_ROWS]).
        count: rows in use.
    """

    blocks: tuple[Block, ...]
    count: int
    dimension: int

    @classmethod
    def from_array(cls, rows: npt.NDArray[np.float32]) -> ItemRows:
        """Rows float32 [n, d], copied."""
        empty = cls((), 0, rows.shape[1])
        return empty.extended(rows)

    def extended(self, rows: npt.NDArray[np.float32]) -> ItemRows:
        """With these rows, float32 [m, d], after the last one. Only one writer may extend the newest version."""
        blocks = list(self.blocks)
        count = self.count
        done = 0
        while done < len(rows):
            if count == len(blocks) * BLOCK_ROWS:
                blocks.append(
                    (np.zeros((BLOCK_ROWS, self.dimension), dtype=np.float32), np.zeros(BLOCK_ROWS, dtype=np.float32))
                )
            place = count % BLOCK_ROWS
            taken = min(BLOCK_ROWS - place, len(rows) - done)
            _write(blocks[-1], slice(place, place + taken), rows[done : done + taken])
            done += taken
            count += taken
        return ItemRows(tuple(blocks), count, self.dimension)

    def replaced(self, changes: Mapping[int, npt.NDArray[np.float32]]) -> ItemRows:
        """With other rows at these indices; the blocks concerned are copied once each."""
        blocks = list(self.blocks)
        for number in {index // BLOCK_ROWS for index in changes}:
            directions, lengths = blocks[number]
            blocks[number] = (directions.copy(), lengths.copy())
        for index, row in changes.items():
            place = index % BLOCK_ROWS
            _write(blocks[index // BLOCK_ROWS], slice(place, place + 1), row[None])
        return ItemRows(tuple(blocks), self.count, self.dimension)

    def shared(self, share: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]) -> ItemRows:
        """The same rows, full blocks held elsewhere.

        The last block stays where it is: new rows go into its spare places.

        Args:
            share: array to an equal one that nobody writes to.
        """
        full = self.count // BLOCK_ROWS
        moved = ((share(directions), share(lengths)) for directions, lengths in self.blocks[:full])
        blocks = tuple(
            block if directions is block[0] and lengths is block[1] else (directions, lengths)
            for block, (directions, lengths) in zip(self.blocks, moved, strict=False)
        )
        return ItemRows(blocks + self.blocks[full:], self.count, self.dimension)

    def vectors(self, indices: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """c_v at these indices, float32 [m, d]."""
        directions, lengths = self._gather(indices)
        vectors: npt.NDArray[np.float32] = directions * lengths[:, None]
        return vectors

    def products(
        self,
        vector: npt.NDArray[np.float32],
        cosine: bool,
        out: npt.NDArray[np.float32],
        between: Callable[[], None] | None = None,
    ) -> None:
        """<vector, c_v / |c_v|> (cosine) or <vector, c_v> of every row, into ``out`` float32 [count].

        Args:
            between: called before every block but the first; what it raises ends the work.
        """
        for number, (directions, lengths) in enumerate(self.blocks):
            if between is not None and number:
                between()
            start = number * BLOCK_ROWS
            used = min(self.count - start, BLOCK_ROWS)
            part = out[start : start + used]
            np.dot(directions[:used], vector, out=part)
            if not cosine:
                part *= lengths[:used]

    def products_of(
        self,
        vectors: npt.NDArray[np.float32],
        cosine: bool,
        outs: Sequence[npt.NDArray[np.float32]],
        between: Callable[[], None] | None = None,
    ) -> None:
        """``products`` of several vectors [m, d] in one pass over the rows, into ``outs``, m arrays float32 [count].

        Sums are added in another order than for one vector alone, so that scores may differ in their last bits.
        """
        columns = np.ascontiguousarray(vectors.T)
        products = np.empty((BLOCK_ROWS, len(vectors)), dtype=np.float32)
        for number, (directions, lengths) in enumerate(self.blocks):
            if between is not None and number:
                between()
            start = number * BLOCK_ROWS
            block = products[: min(self.count - start, BLOCK_ROWS)]
            np.dot(directions[: len(block)], columns, out=block)
            if not cosine:
                block *= lengths[: len(block), None]
            for place, out in enumerate(outs):
                out[start : start + len(block)] = block[:, place]

    def products_at(
        self, indices: npt.NDArray[np.integer], vector: npt.NDArray[np.float32], cosine: bool
    ) -> npt.NDArray[np.float32]:
        """The same for some rows, float32 [m]."""
        directions, lengths = self._gather(indices)
        products: npt.NDArray[np.float32] = directions @ vector
        return products if cosine else products * lengths

    def _gather(self, indices: npt.NDArray[np.integer]) -> Block:
        if len(self.blocks) == 1:
            directions, lengths = self.blocks[0]
            return directions[indices], lengths[indices]
        found = np.empty((len(indices), self.dimension), dtype=np.float32)
        sizes = np.empty(len(indices), dtype=np.float32)
        if len(indices) <= PICKED_ONE_BY_ONE:
            for place, index in enumerate(indices.tolist()):
                directions, lengths = self.blocks[index // BLOCK_ROWS]
                found[place] = directions[index % BLOCK_ROWS]
                sizes[place] = lengths[index % BLOCK_ROWS]
            return found, sizes
        if (indices[1:] >= indices[:-1]).all():
            # Long lists are sorted: each block then has a piece of them.
            ends = np.searchsorted(indices, np.arange(len(self.blocks) + 1) * BLOCK_ROWS).tolist()
            for number, (start, end) in enumerate(itertools.pairwise(ends)):
                if start < end:
                    directions, lengths = self.blocks[number]
                    places = indices[start:end] - number * BLOCK_ROWS
                    np.take(directions, places, axis=0, out=found[start:end], mode="clip")
                    sizes[start:end] = lengths[places]
            return found, sizes
        owner = indices // BLOCK_ROWS
        for number in np.unique(owner):
            chosen = owner == number
            directions, lengths = self.blocks[number]
            found[chosen] = directions[indices[chosen] % BLOCK_ROWS]
            sizes[chosen] = lengths[indices[chosen] % BLOCK_ROWS]
        return found, sizes


def _write(block: Block, places: slice, rows: npt.NDArray[np.float32]) -> None:
    directions, lengths = block
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    lengths[places] = norms
    directions[places] = rows / np.maximum(norms, SMALLEST_NORM)[:, None]
