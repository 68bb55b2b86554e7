"""The ways of a case from its functions: ours, the eager ones, under a CUDA graph, compiled."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from kernels.benchmark.cases import OURS, Setting, Way


def ways_of(
    setting: Setting,
    ours: Callable[..., Any],
    eager: Mapping[str, Callable[..., Any]],
    compiled: str = "",
    headline: bool = False,
    gradients: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda function: function,
    missing: Mapping[str, str] | None = None,
    takes_bytes: float = 0.0,
    fixed: Sequence[torch.Tensor] = (),
) -> list[Way]:
    """Ours first, then each baseline; on CUDA each of them, compiled code too, under a CUDA graph as well, as ours is.

    Args:
        setting: where they run.
        ours: the public function of ``kernels``, from the streamed tensors to a result.
        eager: the same for each baseline.
        compiled: the eager one that torch.compile gets; empty for none.
        headline: whether it does so in a quick run too; it compiles for some ten seconds a case.
        gradients: makes the timed call of a function, where gradients are timed as well.
        missing: why a baseline cannot run here.
        takes_bytes: memory that each baseline needs.
        fixed: inputs that stay where they are; torch's own graphs copy all others into memory of theirs first.
    """
    why = missing or {}
    on_cuda = setting.device.type == "cuda"
    ways = [Way(OURS, gradients(ours), captured=True)]
    for name, function in eager.items():
        call = gradients(function)
        ways.append(Way(name, call, missing=why.get(name, ""), takes_bytes=takes_bytes))
        if on_cuda:
            ways.append(Way(f"{name}, CUDA graph", call, missing=why.get(name, ""), takes_bytes=takes_bytes, captured=True))
    if compiled and setting.compile and (headline or setting.scale != "quick"):
        why_not = why_no_compiler(setting)
        for tensor in fixed if on_cuda else ():
            torch._dynamo.mark_static_address(tensor)
        call = gradients(torch.compile(eager[compiled], dynamic=False))
        ways.append(Way("torch.compile", call, missing=why_not, takes_bytes=takes_bytes, compiled=True))
        if on_cuda:
            # Ours is measured in a graph, and so is the compiled code: in the same kind of graph, and in torch's own.
            name = "torch.compile, CUDA graph"
            ways.append(Way(name, call, missing=why_not, takes_bytes=takes_bytes, captured=True, compiled=True))
            call = gradients(torch.compile(eager[compiled], mode="reduce-overhead", dynamic=False))
            name = "torch.compile reduce-overhead"
            ways.append(Way(name, call, missing=why_not, takes_bytes=takes_bytes, own_graph=True, compiled=True))
    return ways


def why_no_compiler(setting: Setting) -> str:
    """Why torch.compile cannot be measured; empty where it can."""
    if setting.device.type == "cuda":
        return "" if importlib.util.find_spec("triton") else "Triton is not installed"
    return "" if shutil.which(os.environ.get("CXX", "g++")) else "there is no C++ compiler"


def why_no_package(name: str) -> str:
    """Why a baseline of a library cannot be measured; empty where it can."""
    return "" if importlib.util.find_spec(name) else f"{name} cannot be imported"
