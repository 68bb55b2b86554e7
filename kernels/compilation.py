"""Every Triton kernel compiled for GPUs that need not be there: registers, spills, shared memory, tensor-core instructions.

    python -m kernels.compilation                    # the representative configurations, for sm_80 and sm_90
    python -m kernels.compilation --all --json       # all of them, as JSON

Run it without TRITON_INTERPRET: the interpreter replaces the compiler.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import multiprocessing
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

TARGETS = (80, 90)
# Shared memory one program may use, in bytes (CUDA programming guide, compute capabilities 8.0 and 9.0).
SHARED_LIMIT = {80: 163 << 10, 90: 227 << 10}


@dataclass(frozen=True)
class Configuration:
    """One way in which a kernel is launched.

    Attributes:
        name: tells it from the other configurations, e.g. "gated_layers_forward bf16 d=64".
        kernel: the ``@triton.jit`` function.
        types: Triton type of each argument that is no constant, e.g. ``{"nodes_ptr": "*bf16", "num_layers": "i32"}``.
        constants: value of each ``tl.constexpr`` argument.
        num_warps, num_stages: as at the launch.
        representative: compiled by `make test`; the others by `make test-all`.
        wgmma: whether Hopper's asynchronous tensor-core instruction must appear on sm_90.
        targets: compute capabilities it is launched on.
    """

    name: str
    kernel: Any
    types: Mapping[str, str]
    constants: Mapping[str, Any] = field(default_factory=dict)
    num_warps: int = 4
    num_stages: int = 3
    representative: bool = True
    wgmma: bool = False
    targets: tuple[int, ...] = TARGETS


@dataclass(frozen=True)
class Compiled:
    """What the compiler made of a configuration for one target.

    Attributes:
        name, target: of the configuration; compute capability (90 is sm_90).
        registers: a thread.
        spilled_bytes: a thread, stores and loads together; none are wanted.
        shared_bytes: a program.
        wgmma: whether the instruction appears.
        wgmma_expected: whether it must.
        seconds: of compilation.
    """

    name: str
    target: int
    registers: int
    spilled_bytes: int
    shared_bytes: int
    wgmma: bool
    wgmma_expected: bool
    seconds: float

    @property
    def problems(self) -> list[str]:
        """What is wrong with it; empty when it may be launched."""
        found = []
        if self.spilled_bytes:
            found.append(f"spills {self.spilled_bytes} bytes")
        if self.shared_bytes > SHARED_LIMIT[self.target]:
            found.append(f"needs {self.shared_bytes} bytes of shared memory, the chip has {SHARED_LIMIT[self.target]}")
        if self.wgmma_expected and self.target >= 90 and not self.wgmma:
            found.append("has no wgmma")
        return found


def all_configurations() -> Iterator[Configuration]:
    """Those of every op: each folder of ``kernels`` with a ``configurations.py`` lists its own in CONFIGURATIONS."""
    for path in sorted(Path(__file__).parent.glob("*/configurations.py")):
        yield from importlib.import_module(f"kernels.{path.parent.name}.configurations").CONFIGURATIONS


def compile_for(configuration: Configuration, target: int) -> Compiled:
    """Compile one configuration for a compute capability; no GPU is needed.

    Raises:
        ValueError: an argument of the kernel has neither a type nor a value, or the interpreter is on.
        Exception: whatever Triton's compiler says of a kernel it cannot compile.
    """
    import triton
    from triton import knobs
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = configuration.kernel
    if not hasattr(kernel, "arg_names") or "Interpreted" in type(kernel).__name__:
        raise ValueError("Triton's interpreter is on: unset TRITON_INTERPRET to compile")
    given = set(configuration.types) | set(configuration.constants)
    if given != set(kernel.arg_names):
        raise ValueError(
            f"{configuration.name}: types and constants differ from the kernel's arguments in {given ^ set(kernel.arg_names)}"
        )
    signature = {name: configuration.types.get(name, "constexpr") for name in kernel.arg_names}
    # Buffers of torch are aligned, as the launcher finds out at run time.
    attributes = {
        (place,): [["tt.divisibility", 16]] for place, name in enumerate(kernel.arg_names) if signature[name][0] == "*"
    }
    source = ASTSource(kernel, signature, dict(configuration.constants), attributes)
    options = {"num_warps": configuration.num_warps, "num_stages": configuration.num_stages}
    started = time.monotonic()
    log = io.StringIO()
    with knobs.nvidia.scope(), knobs.compilation.scope(), contextlib.redirect_stdout(log):
        knobs.nvidia.dump_ptxas_log = True
        knobs.compilation.always_compile = True
        compiled = triton.compile(source, target=GPUTarget("cuda", target, 32), options=options)
    spilled = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", log.getvalue())
    registers = re.search(r"Used (\d+) registers", log.getvalue())
    if spilled is None or registers is None:
        raise RuntimeError(f"{configuration.name}: the assembler's report cannot be read: {log.getvalue()[:300]!r}")
    return Compiled(
        name=configuration.name,
        target=target,
        registers=int(registers[1]),
        spilled_bytes=int(spilled[1]) + int(spilled[2]),
        shared_bytes=int(compiled.metadata.shared),
        wgmma="wgmma" in compiled.asm["ptx"],
        wgmma_expected=configuration.wgmma,
        seconds=round(time.monotonic() - started, 1),
    )


def chosen_configurations(everything: bool, match: str) -> list[Configuration]:
    """The representative configurations, or all of them, whose name contains ``match``; always in the same order."""
    return [one for one in all_configurations() if (everything or one.representative) and match in one.name]


def compile_all(everything: bool, match: str, jobs: int) -> Iterator[Compiled]:
    """Compile the chosen configurations for each of their targets, in order, ``jobs`` processes at a time."""
    numbered = [
        (everything, match, number, target)
        for number, configuration in enumerate(chosen_configurations(everything, match))
        for target in configuration.targets
    ]
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_compile_numbered, numbered)


def _compile_numbered(place: tuple[bool, str, int, int]) -> Compiled:
    # A kernel cannot be sent to another process; its place in the list can.
    everything, match, number, target = place
    return compile_for(chosen_configurations(everything, match)[number], target)


def main(arguments: list[str] | None = None) -> int:
    """Print the table; the exit status says whether every kernel may be launched."""
    parser = argparse.ArgumentParser(prog="python -m kernels.compilation", description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="all configurations, not only the representative ones")
    parser.add_argument("--match", default="", help="only configurations whose name contains this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes side by side (default: one a core)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of a table")
    chosen = parser.parse_args(arguments)
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
    bad = 0
    if not chosen.json:
        print(f"{'kernel':56} {'sm':>3} {'regs':>5} {'spill B':>8} {'shared B':>9} {'wgmma':>6} {'s':>6}")
    for one in compile_all(chosen.all, chosen.match, chosen.jobs):
        bad += bool(one.problems)
        if chosen.json:
            print(json.dumps({**asdict(one), "problems": one.problems}), flush=True)
        else:
            row = f"{one.name:56} {one.target:>3} {one.registers:>5} {one.spilled_bytes:>8} {one.shared_bytes:>9}"
            print(f"{row} {'yes' if one.wgmma else 'no':>6} {one.seconds:>6}  {'; '.join(one.problems)}", flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
