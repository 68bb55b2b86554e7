"""Strings and their numbers, without a Python object for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pyarrow as pa


class Vocabulary:
    """Distinct strings, numbered from 0 in order of first appearance; held as one Arrow array.

    Args:
        values: distinct strings to start with.
    """

    def __init__(self, values: pa.Array | None = None) -> None:
        import pyarrow as pa

        self.values: pa.Array = pa.array([], pa.string()) if values is None else values

    def __len__(self) -> int:
        return len(self.values)

    def find(self, strings: pa.Array) -> npt.NDArray[np.int32]:
        """int32 [n], the number of each string; -1 where it is unknown or null."""
        import pyarrow.compute as pc

        encoded = strings.dictionary_encode()
        numbers = _as_int32(pc.index_in(encoded.dictionary, value_set=self.values))
        return _spread(numbers, encoded)

    def encode(self, strings: pa.Array) -> npt.NDArray[np.int32]:
        """int32 [n], the number of each string; unknown ones are added, null is -1."""
        import pyarrow as pa
        import pyarrow.compute as pc

        encoded = strings.dictionary_encode()
        numbers = _as_int32(pc.index_in(encoded.dictionary, value_set=self.values))
        new = numbers < 0
        if new.any():
            numbers = numbers.copy()
            numbers[new] = len(self.values) + np.arange(int(new.sum()), dtype=np.int32)
            self.values = pa.concat_arrays([self.values, encoded.dictionary.filter(pa.array(new))])
        return _spread(numbers, encoded)


def _as_int32(indices: pa.Array) -> npt.NDArray[np.int32]:
    return np.asarray(indices.fill_null(-1).to_numpy(zero_copy_only=False), dtype=np.int32)


def _spread(numbers: npt.NDArray[np.int32], encoded: pa.DictionaryArray) -> npt.NDArray[np.int32]:
    # the extra place answers for null, whose index is -1
    numbers = np.append(numbers, np.int32(-1))
    return numbers[_as_int32(encoded.indices)]
