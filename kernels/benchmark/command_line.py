"""The command ``python -m kernels.benchmark``.

Each op is computed at each size in several ways: by the function of ``kernels`` and by what one would use instead. Each result
is compared with its definition in float64 first; a wrong one gets no figure. Figures stand beside the least time that the op's
bytes and products take at the speed this very machine copies and multiplies.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from kernels.benchmark.cases import OURS, Setting
from kernels.benchmark.machine import commit, device_line, machine, versions
from kernels.benchmark.measure import Row, measure
from kernels.benchmark.ops import OPS
from kernels.benchmark.plot import draw_roofline
from kernels.benchmark.report import HEADER, as_json, lines_of
from kernels.benchmark.roofs import H200, Roofs, measured_roofs
from kernels.benchmark.sessions import session_source
from kernels.dispatch import DTYPES

# A quick run begins no case after so long, and so ends within two minutes.
QUICK_SECONDS = 90.0
# Seconds of timing that a way gets.
QUICK_BUDGET, FULL_BUDGET = 0.25, 2.0


def parser_of(program: str) -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        prog=program,
        description=(__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    scale = parser.add_mutually_exclusive_group()
    scale.add_argument("--quick", action="store_true", help="smaller sizes and fewer rounds: within two minutes")
    scale.add_argument("--tiny", action="store_true", help="the tests' sizes, e.g. for a run under compute-sanitizer")
    parser.add_argument("--seconds", type=float, help="begin no case after so many (default: 90 of a quick run, else no limit)")
    parser.add_argument("--op", action="append", choices=list(OPS), help="only this op; may be given several times")
    parser.add_argument("--threads", type=int, help="of the CPU (default: as many as torch takes)")
    parser.add_argument("--out", type=Path, default=Path("runs/kernels"), help="directory of JSON and plots (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the JSON instead of the table")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is one")
    parser.add_argument("--dtype", choices=list(DTYPES), help="default: bf16 on CUDA, fp32 on a CPU")
    parser.add_argument(
        "--sessions",
        choices=["auto", "data", "published", "even"],
        default="auto",
        help="those below LLMGR_DATA, drawn from published figures, or of 3 to 20 clicks (%(default)s: data if there is any)",
    )
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="torch.compile among the baselines")
    parser.add_argument("--check-only", action="store_true", help="compare all results with float64 and time nothing")
    parser.add_argument("--floors", action="store_true", help="print bytes, FLOP and the floor on an H200, and run nothing")
    return parser


def main(arguments: list[str] | None = None, program: str = "python -m kernels.benchmark") -> int:
    """Run; the exit status is 1 if a result of ours is wrong."""
    parser = parser_of(program)
    chosen = parser.parse_args(arguments)
    if chosen.threads is not None:
        if chosen.threads < 1:
            parser.error(f"--threads {chosen.threads}: at least 1")
        _limit_threads(chosen.threads, sys.argv[1:] if arguments is None else arguments)
    if chosen.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no CUDA device")
    try:
        setting = _setting(chosen)
    except ValueError as error:
        parser.error(str(error))
    if chosen.floors:
        print_floors(setting, chosen.op or list(OPS))
        return 0
    return _run(chosen, setting, shlex.join([*program.split(), *(sys.argv[1:] if arguments is None else arguments)]))


def _limit_threads(count: int, arguments: list[str]) -> None:
    """Give torch and NumPy so many threads; NumPy counts its own when it is loaded, so the command may start again."""
    wanted = {name: str(count) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        environment = {**os.environ, **wanted}
        os.execve(sys.executable, [sys.executable, "-m", "kernels.benchmark", *arguments], environment)
    torch.set_num_threads(count)


def _setting(chosen: argparse.Namespace) -> Setting:
    device = torch.device(chosen.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    on_gpu = device.type == "cuda" or chosen.floors
    memory = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else _free_memory()
    return Setting(
        device=device,
        dtype=DTYPES[chosen.dtype or ("bf16" if on_gpu else "fp32")],
        scale="tiny" if chosen.tiny else "quick" if chosen.quick else "full",
        sessions=session_source(chosen.sessions, os.environ.get("LLMGR_DATA")),
        compile=True if chosen.compile is None else chosen.compile,
        # Making a table of gigabytes would take a CPU longer than all the rest of a quick run.
        memory_bytes=min(0.5 * memory, 2e9) if chosen.quick and device.type == "cpu" else 0.5 * memory,
    )


def _free_memory() -> float:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        return 1024.0 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    except (OSError, StopIteration):
        return 8e9


def _run(chosen: argparse.Namespace, setting: Setting, command: str) -> int:
    started = time.monotonic()
    colour = sys.stdout.isatty()
    seconds = chosen.seconds or (QUICK_SECONDS if chosen.quick else float("inf"))

    def say(line: str) -> None:
        if not chosen.json:
            print(line, flush=True)

    say(device_line(setting.device))
    roofs = None if chosen.check_only else measured_roofs(setting.device, setting.dtype)
    say(f"{_dtype_name(setting)}, {torch.get_num_threads()} threads; {setting.sessions.name}")
    if roofs is not None:
        say(f"copy {roofs.bytes_per_second / 1e9:,.1f} GB/s, matrix product {roofs.flop_per_second / 1e9:,.1f} GFLOP/s")
    say(HEADER)
    rows: list[Row] = []
    # The first size of every op, then the second: a run that is cut short has seen each op.
    by_size = zip_longest(*[OPS[op](setting) for op in chosen.op or list(OPS)])
    for case in (case for cases in by_size for case in cases if case is not None):
        if time.monotonic() - started > seconds:
            of_case = [Row(case.op, case.shape, OURS, problem="left out: the time is over")]
        else:
            of_case = list(measure(case, setting, roofs, FULL_BUDGET if setting.scale == "full" else QUICK_BUDGET))
        rows += of_case
        for line in lines_of(of_case, colour):
            say(line)
    result: dict[str, Any] = {
        "benchmark": "kernels",
        "device": device_line(setting.device),
        "protocol": (
            "each result checked against float64, then timed: on a CPU in turns, medians of the rounds; "
            "on CUDA inside CUDA graphs over inputs that rotate past the L2 cache"
        ),
        "seed": 0,
        "command": command,
        "commit": commit(),
        "machine": machine(setting.device),
        "versions": versions(),
        "environment": {name: os.environ.get(name) for name in ("LLMGR_KERNELS", "OMP_NUM_THREADS", "TRITON_INTERPRET")},
        "dtype": _dtype_name(setting),
        "sessions": setting.sessions.name,
        "scale": setting.scale,
        "roofs": None if roofs is None else roofs._asdict(),
        "seconds": round(time.monotonic() - started, 1),
        "rows": [as_json(row) for row in rows],
    }
    if chosen.json:
        print(json.dumps(result, indent=1))
    if roofs is not None:
        _write(chosen.out, setting, rows, roofs, result, say)
    wrong = [row for row in rows if row.wrong]
    say(f"{len(wrong)} wrong of {len(rows)} results; {result['seconds']} s")
    return int(any(row.way == OURS for row in wrong))


def _write(directory: Path, setting: Setting, rows: list[Row], roofs: Roofs, result: dict[str, Any], say: Any) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    stem = directory / f"kernels-{setting.device.type}"
    stem.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    written = [stem.with_suffix(".json")]
    try:
        written += draw_roofline(rows, roofs, device_line(setting.device), stem)
    except ImportError as error:
        say(f"no plot: {error}")
    say("written: " + ", ".join(str(path) for path in written))


def _dtype_name(setting: Setting) -> str:
    return next(name for name, dtype in DTYPES.items() if dtype == setting.dtype)


def print_floors(setting: Setting, ops: list[str]) -> None:
    """Bytes, FLOP and the least time of each case at the rates measured on one H200."""
    print(f"floors, not measurements: {H200.bytes_per_second / 1e12} TB/s copy, {H200.flop_per_second / 1e12:.0f} TFLOP/s")
    print(f"{'':52} {'MB':>10} {'GFLOP':>10} {'floor us':>10}  bound by")
    for op in ops:
        for case in OPS[op](setting):
            seconds = H200.floor_seconds(case.moved_bytes, case.flop)
            bound = "copy" if case.moved_bytes / H200.bytes_per_second >= seconds else "products"
            name = f"{op}  {case.shape}"
            print(f"{name:52} {case.moved_bytes / 1e6:10.2f} {case.flop / 1e9:10.3f} {seconds * 1e6:10.2f}  {bound}")
