"""Writing the records of the chosen items."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llmgr_core.data.dataset import write_array
from llmgr_core.data.preparation import Selection
from llmgr_core.data.raw_input import RawInput
from llmgr_core.data.vocabulary import Vocabulary

if TYPE_CHECKING:
    import pyarrow as pa


ROWS_PER_GROUP = 8192


def write_items(directory: Path, raw: RawInput, selection: Selection) -> None:
    """Write the records of the chosen items and their brand and category codes, a few thousand rows at a time."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    brands, categories = Vocabulary(), Vocabulary()
    brand_codes, category_codes = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
    source = pq.ParquetFile(raw.catalogue)
    first = 0
    with pq.ParquetWriter(directory / "items.parquet", source.schema_arrow, compression="zstd") as writer:
        for batch in source.iter_batches(batch_size=ROWS_PER_GROUP):
            chosen = pa.array(selection.index[first : first + batch.num_rows] >= 0)
            first += batch.num_rows
            table = pa.Table.from_batches([batch]).filter(chosen)
            if table.num_rows == 0:
                continue
            writer.write_table(table)
            brand_codes.append(brands.encode(table.column("brand").combine_chunks()))
            path = pc.list_element(_first_paths(table.column("categories").combine_chunks()), 0)
            category_codes.append(categories.encode(pc.binary_join(path, " > ")))
    write_array(directory, "brand_codes.npy", np.concatenate(brand_codes))
    write_array(directory, "category_codes.npy", np.concatenate(category_codes))


def _first_paths(categories: pa.Array) -> pa.Array:
    # list_element refuses an empty list; null stands for "no category" all the same
    import pyarrow.compute as pc

    return pc.if_else(pc.greater(pc.list_value_length(categories), 0), categories, None)
