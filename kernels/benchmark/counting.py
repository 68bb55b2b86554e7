"""Operations and memory of one call."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

# The profiler would write two lines a call.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

# Only make a tensor, or look at one in another way.
WITHOUT_WORK = {
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "_unsafe_view",
    "_local_scalar_dense",
    "lift_fresh",
}


class OperationCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the torch operations that do work; on a CPU each is about what a launch is on a GPU."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count: int = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function._schema.name.partition("::")[2]
        returned = [value.alias_info for value in function._schema.returns]
        is_view = any(alias is not None and not alias.is_write for alias in returned)
        self.count += not is_view and name not in WITHOUT_WORK
        return function(*args, **(kwargs or {}))


def launches(call: Callable[[], Any], device: torch.device, compiled: bool) -> int | None:
    """Kernels and copies that one call starts on a GPU; torch operations on a CPU (None where compiled code hides them)."""
    if device.type == "cuda":
        with profile(activities=[ProfilerActivity.CUDA]) as recorded:
            call()
            torch.cuda.synchronize(device)
        events = recorded.profiler.kineto_results.events()
        return int(sum(event.device_type() == DeviceType.CUDA for event in events))
    if compiled:
        return None
    with OperationCounter() as counter:
        call()
    return int(counter.count)


def peak_bytes(call: Callable[[], Any], device: torch.device) -> int:
    """Memory held at the highest point of one call, beyond what was there before: tensors, and NumPy's arrays on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        result = call()
    del result
    events = recorded.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    held = highest = 0
    for _, change in changes:
        held += change
        highest = max(highest, held)
    # The profiler sees torch's allocator, tracemalloc that of Python and NumPy.
    tracemalloc.start()
    result = call()
    del result
    python_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return highest + python_bytes
