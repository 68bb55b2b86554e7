"""A dry run as a table."""

from __future__ import annotations

from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

BYTES = {
    "weights": "weights",
    "gradients": "gradients",
    "moments": "optimizer moments",
    "weight_copies": "ZeRO: copies of weights",
    "buckets": "ZeRO: buckets of gradients",
}


def dry_run_table(found: dict[str, Any]) -> Group:
    """What ``dry_run`` found, a column a stage."""
    threads = f", threads: {found['threads']}" if found["device"] == "cpu" else ""
    zero = f", {found['processes']} processes, ZeRO-{found['zero_stage']}" if found["processes"] > 1 else ""
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    stages = found["stages"]
    for stage in stages:
        table.add_column(f"stage {stage['stage']}", justify="right")

    def row(name: str, values: list[str]) -> None:
        table.add_row(name, *values)

    row("trainable parameters", [f"{stage['trainable_parameters']:,}" for stage in stages])
    row("all parameters", [f"{found['total_parameters']:,}"] * len(stages))
    for key, name in BYTES.items():
        if any(stage["bytes"][key] for stage in stages):
            row(name, [_mebibytes(stage["bytes"][key]) for stage in stages])
    together = "together, each process" if found["processes"] > 1 else "together"
    row(together, [_mebibytes(sum(stage["bytes"].values())) for stage in stages])
    row("peak memory of the largest step", [_mebibytes(stage["peak_memory_bytes"]) for stage in stages])
    row("steps", [f"{stage['steps']:,}" for stage in stages])
    row("examples", [f"{stage['examples']:,}" for stage in stages])
    prompts = [f"{stage['mean_prompt_tokens']:.1f} / {stage['longest_prompt_tokens']}" for stage in stages]
    row("prompt tokens, mean / longest", prompts)
    row("padding of prompts", [f"{stage['padding']:.1%}" for stage in stages])
    row("tokens, item texts and padding included", [f"{stage['tokens']:,}" for stage in stages])
    row("tokens a second", [f"{stage['tokens_per_second']:,}" for stage in stages])
    row("share of the machine's peak", [f"{stage['share_of_peak']:.1%}" for stage in stages])
    row("minutes", [f"{stage['minutes']:.1f}" for stage in stages])
    held = "tensors on the GPU" if found["device"].startswith("cuda") else "all that is resident, libraries and data included"
    return Group(
        Text(f"{found['model']} in {found['dtype']} on {found['device']}{threads}{zero}", style="bold"),
        table,
        Text(f"Peak memory: {held}."),
        Text(f"Training: {found['minutes']:.1f} minutes; embedding the catalogue and validation come on top."),
        Text(f"Peak: a matrix product on this device, {found['matmul_flops_per_second'] / 1e9:,.0f} GFLOP/s."),
    )


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"
