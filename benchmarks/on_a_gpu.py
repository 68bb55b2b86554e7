"""Everything that only a CUDA machine can show, in one go: checks first, then the listings of training steps, then the times.

    python benchmarks/on_a_gpu.py                        all of it; logs, JSON and plots go to runs/gpu
    python benchmarks/on_a_gpu.py --quick                the benchmark at its small sizes: within some ten minutes
    python benchmarks/on_a_gpu.py --only benchmark       one part, where a command may not run for long
    python benchmarks/on_a_gpu.py --list                 what would be run
    python benchmarks/on_a_gpu.py --rehearse             the same on a CPU at the smallest sizes; no figure of it is a GPU's

Each part is a process of its own with a log; a part that fails ends nothing but itself. The exit status is 1 if one failed.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch

ROOT = Path(__file__).resolve().parents[1]
SANITIZER = "tests/kernels/test_memory_sanitizer.py"
INTERPRETED = {"TRITON_INTERPRET": "1", "LLMGR_KERNELS": "triton"}
NO_GPU = "no CUDA device here: --list says what would be run, --rehearse runs what a CPU can"


class Part(NamedTuple):
    """One process: its name, what it shows, its command behind "python", and what it adds to the environment."""

    name: str
    shows: str
    command: list[str]
    environment: Mapping[str, str] = {}


def parts_of(out: Path, *, quick: bool, rehearse: bool) -> list[Part]:
    """The parts in their order."""
    device = "cpu" if rehearse else "cuda"
    check = ["-m", "kernels.benchmark", "--tiny", "--check-only", "--no-compile", "--sessions", "even", "--device", device]
    listing = ["benchmarks/training_listing.py", "--device", device]
    listing += ["--items", "60", "--sessions", "2"] if rehearse else []
    size = ["--tiny"] if rehearse else ["--quick"] if quick else []
    parts = [
        Part(f"check-{dtype}", "every result against its definition in float64", [*check, "--dtype", dtype])
        for dtype in (["fp32"] if rehearse else ["fp32", "bf16", "fp16"])
    ]
    if not rehearse:
        parts += [
            Part("sanitizer", "no access outside a buffer, no race", ["-m", "pytest", "-m", "gpu", "-rs", SANITIZER]),
            Part("tests", "tests that need a GPU", ["-m", "pytest", "-m", "gpu", "-rs", "tests", "--ignore", SANITIZER]),
        ]
    parts += [
        Part(
            f"listing-{step}-{encoder}",
            "what one step of training runs",
            [*listing, "--step", step, "--encoder", encoder, "--out", str(out / f"listing-{step}-{encoder}.json")],
            INTERPRETED if rehearse else {},
        )
        for step in ("stage-2", "pretraining")
        for encoder in ("gcsan", "srgnn")
    ]
    ranking = ["benchmarks/graphed_ranking.py", "--out", str(out / "graphed-ranking.json")]
    benchmark = ["-m", "kernels.benchmark", *size, "--device", device, "--out", str(out)]
    parts.append(Part("ranking", "the ranking server's captured graphs", ranking))
    parts.append(Part("benchmark", "times of all ops beside floors and baselines", benchmark))
    return parts


def run(part: Part, out: Path) -> dict[str, Any]:
    """Run one part; its output goes to ``out/NAME.log``."""
    command = [sys.executable, *part.command]
    log, started = out / f"{part.name}.log", time.monotonic()
    environment = {
        **os.environ,
        **part.environment,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    with log.open("w", encoding="utf-8") as written:
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=written, stderr=subprocess.STDOUT, check=False)
    told = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return {
        "part": part.name,
        "command": shlex.join(["python", *part.command]),
        "status": done.returncode,
        "seconds": round(time.monotonic() - started, 1),
        "last_line": told[-1][:160] if told else "",
    }


@click.command("on-a-gpu", help=(__doc__ or "").partition("\n\n")[0])
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("runs/gpu"), show_default=True)
@click.option("--quick", is_flag=True, help="The benchmark at its small sizes.")
@click.option("--only", multiple=True, metavar="NAME", help="Only this part; may be given several times.")
@click.option("--list", "only_list", is_flag=True, help="Print the parts and run nothing.")
@click.option("--rehearse", is_flag=True, help="On a CPU, at the smallest sizes.")
def command(out: Path, quick: bool, only: tuple[str, ...], only_list: bool, rehearse: bool) -> None:
    out = out.resolve()
    parts = parts_of(out, quick=quick, rehearse=rehearse)
    names = [part.name for part in parts]
    if unknown := sorted(set(only) - set(names)):
        raise click.UsageError(f"--only {unknown[0]}: there are {', '.join(names)}")
    parts = [part for part in parts if not only or part.name in only]
    if only_list:
        for part in parts:
            click.echo(f"{part.name:26} {part.shows}\n    {shlex.join(['python', *part.command])}")
        return
    if not rehearse and not torch.cuda.is_available():
        raise click.UsageError(NO_GPU)
    out.mkdir(parents=True, exist_ok=True)
    done = []
    for part in parts:
        click.echo(f"{part.name:26} {part.shows} ...")
        done.append(run(part, out))
        click.echo(
            f"{'':26} {'passed' if done[-1]['status'] == 0 else 'FAILED'}, {done[-1]['seconds']} s: {done[-1]['last_line']}"
        )
        (out / "parts.json").write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
    failed = [row["part"] for row in done if row["status"]]
    click.echo(f"{len(done) - len(failed)} of {len(done)} parts passed; logs and JSON: {out}")
    sys.exit(int(bool(failed)))


if __name__ == "__main__":
    command()
