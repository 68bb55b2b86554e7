"""The measured ops: each makes its cases from a setting. A new op is a function more in OPS."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from kernels.benchmark.cases import Case, Setting
from kernels.benchmark.ops.catalogue import cross_entropy_cases, scoring_cases
from kernels.benchmark.ops.gated_graph import backward_cases, layer_cases
from kernels.benchmark.ops.item_rows import item_rows_cases
from kernels.benchmark.ops.packing import packing_cases
from kernels.benchmark.ops.placing import backward_cases as placing_backward_cases
from kernels.benchmark.ops.placing import in_place_cases, into_cases
from kernels.benchmark.ops.projection import pooled_cases
from kernels.benchmark.ops.ranking import ranking_cases
from kernels.benchmark.ops.session_vectors import attention_cases, readout_cases
from kernels.benchmark.ops.target_rank import target_rank_cases

OPS: Mapping[str, Callable[[Setting], Iterator[Case]]] = {
    "session_graph": packing_cases,
    "gated_layers": layer_cases,
    "gated_layers_backward": backward_cases,
    "project_into": into_cases,
    "project_into_in_place": in_place_cases,
    "project_into_backward": placing_backward_cases,
    "project_pooled": pooled_cases,
    "attention_readout": readout_cases,
    "session_attention": attention_cases,
    "score_topk": scoring_cases,
    "ranking_path": ranking_cases,
    "catalogue_cross_entropy": cross_entropy_cases,
    "target_rank": target_rank_cases,
    "item_rows_backward": item_rows_cases,
}
