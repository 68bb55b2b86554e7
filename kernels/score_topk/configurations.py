"""Every way in which the scoring kernels are launched, for the compiler gate."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from kernels.compilation import TARGETS, Configuration
from kernels.dispatch import DTYPES
from kernels.score_topk import launch_plan
from kernels.score_topk.block_maxima import block_maxima_kernel
from kernels.score_topk.exact_keys import block_keys_kernel, candidate_keys_kernel
from kernels.score_topk.launch_plan import BATCH, CHUNK, EXACT_ITEMS, EXACT_WARPS, KEEPS, RANKING_WARPS
from kernels.score_topk.ranking import ranking_kernel
from kernels.score_topk.select_blocks import select_blocks_kernel

# z and the table, as they are multiplied: z goes to float32 unless both have one dtype.
PAIRS = (("fp32", "fp32"), ("fp16", "fp16"), ("bf16", "bf16"), ("fp32", "fp16"), ("fp32", "bf16"))
LISTS = {
    "exclude_items_ptr": "*i64",
    "exclude_bounds_ptr": "*i64",
    "additive_items_ptr": "*i64",
    "additive_values_ptr": "*fp32",
    "additive_bounds_ptr": "*i64",
    "rankable_ptr": "*i1",
}
SESSIONS = {"exclude_sessions_ptr": "*i64", "additive_sessions_ptr": "*i64"}


def _block_maxima() -> Iterator[Configuration]:
    pointers = {"maxima_ptr": "*fp32", "part_maximum_ptr": "*fp32", "part_sum_ptr": "*fp32"}
    sizes = dict.fromkeys(("num_sessions", "num_items", "num_parts"), "i32")
    shapes = (("1 x 12k", 1, 12_101), ("1 x 1M", 1, 10**6), ("1024 x 1M", 1024, 10**6))
    edits = ("", " by session", " by tile")
    for (z_type, table_type), d, (shape, num_sessions, num_items), edited, target in product(
        PAIRS, (64, 128), shapes, edits, TARGETS
    ):
        many = num_sessions > launch_plan.FEW_SESSIONS
        if many and edited == " by session":
            continue
        plan = launch_plan.catalogue_plan(num_sessions, num_items, d, DTYPES[z_type], target)
        lists = LISTS | (SESSIONS if edited == " by tile" else {}) if edited else {}
        yield Configuration(
            name=f"score_topk block_maxima {z_type} x {table_type} d={d} {shape}{edited} sm_{target}",
            kernel=block_maxima_kernel,
            types={"z_ptr": f"*{z_type}", "table_ptr": f"*{table_type}", **pointers, **sizes, **lists},
            constants={
                **dict.fromkeys(name for name in (*LISTS, *SESSIONS) if name not in lists),
                "D": d,
                "BLOCK_D": plan.block_d,
                "BLOCK_B": plan.block_b,
                "BLOCK_V": plan.block_v,
                "BATCH": BATCH,
                "HAS_EXCLUDE": bool(edited),
                "HAS_ADDITIVE": bool(edited),
                "HAS_RANKABLE": bool(edited),
                "SORTED": edited == " by tile",
                "TILES": launch_plan.tiles_per_part(-(-num_items // plan.block_v), -(-num_sessions // plan.block_b)),
            },
            num_warps=plan.num_warps,
            num_stages=plan.num_stages,
            representative=many and d == 64 and z_type == table_type,
            wgmma=many and z_type != "fp32",
            targets=(target,),
        )


def _select_blocks() -> Iterator[Configuration]:
    for k in (20, 100, 1000):
        for num_blocks in (379, 15_625, 1 << 16, 1 << 18):
            plan = launch_plan.selection_plan(k, num_blocks)
            yield Configuration(
                name=f"score_topk select_blocks slots={plan.slots} width={plan.width} span={plan.span}",
                kernel=select_blocks_kernel,
                types={"maxima_ptr": "*fp32", "blocks_ptr": "*i64", "num_blocks": "i32"},
                constants={"SLOTS": plan.slots, "WIDTH": plan.width, "SPAN": plan.span},
                num_warps=plan.num_warps,
                representative=num_blocks == 15_625,
            )


def _exact_keys() -> Iterator[Configuration]:
    for (z_type, table_type), lists, d in product(PAIRS, (False, True), (64, 128)):
        given = LISTS if lists else {}
        shared = {
            **dict.fromkeys(name for name in LISTS if name not in given),
            "D": d,
            "STEP_D": launch_plan.exact_step(d, DTYPES[z_type], DTYPES[table_type]),
            "ITEMS": EXACT_ITEMS,
            "BATCH": BATCH,
            "HAS_EXCLUDE": lists,
            "HAS_ADDITIVE": lists,
            "HAS_RANKABLE": lists,
        }
        tensors = {"z_ptr": f"*{z_type}", "table_ptr": f"*{table_type}", "keys_ptr": "*i64", **given}
        name = f"{z_type} x {table_type} d={d}{' with lists' if lists else ''}"
        representative = lists and z_type == table_type and d == 64
        for block_v in (64, 32):
            yield Configuration(
                name=f"score_topk block_keys {name} block={block_v}",
                kernel=block_keys_kernel,
                types={**tensors, "blocks_ptr": "*i64", **dict.fromkeys(("num_items", "num_slots", "slots"), "i32")},
                constants={**shared, "BLOCK_V": block_v},
                num_warps=EXACT_WARPS,
                representative=representative and block_v == 64,
            )
        yield Configuration(
            name=f"score_topk candidate_keys {name}",
            kernel=candidate_keys_kernel,
            types={
                **tensors,
                "candidate_items_ptr": "*i64",
                "candidate_bounds_ptr": "*i64",
                "scores_ptr": "*fp32",
                "num_items": "i32",
                "num_parts": "i32",
            },
            constants=shared,
            num_warps=EXACT_WARPS,
            representative=representative,
        )


def _ranking() -> Iterator[Configuration]:
    floats = dict.fromkeys(("part_maximum_ptr", "part_sum_ptr", "best_ptr", "lse_ptr"), "*fp32")
    sizes = dict.fromkeys(("keys_of_session", "k", "num_parts"), "i32")
    for keep in KEEPS:
        for ragged in (False, True):
            lists = {"bounds_ptr": "*i64", "scores_ptr": "*fp32"} if ragged else {}
            yield Configuration(
                name=f"score_topk ranking keep={keep}{' ragged' if ragged else ''}",
                kernel=ranking_kernel,
                types={"keys_ptr": "*i64", "ids_ptr": "*i64", **floats, **sizes, **lists},
                constants={
                    **({} if ragged else {"bounds_ptr": None, "scores_ptr": None}),
                    "KEEP": keep,
                    "CHUNK": CHUNK,
                    "RAGGED": ragged,
                },
                num_warps=RANKING_WARPS[keep],
                representative=keep == KEEPS[0],
            )


CONFIGURATIONS: list[Configuration] = list(
    {one.name: one for one in (*_block_maxima(), *_select_blocks(), *_exact_keys(), *_ranking())}.values()
)
