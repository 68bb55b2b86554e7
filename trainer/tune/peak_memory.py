"""The most memory that a piece of work held."""

from __future__ import annotations

import gc
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"


def peak_memory(device: torch.device, work: Callable[[], object]) -> int:
    """Bytes: of tensors on a CUDA device; elsewhere resident memory of this process, libraries and data included.

    Where Linux does not let the process forget its earlier peak (and on other systems), the peak is that of its whole life.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device)
    _forget_peak()
    work()
    return _peak_resident()


def _forget_peak() -> None:
    try:
        CLEAR.write_text(RESET_PEAK)
    except OSError:
        return


def _peak_resident() -> int:
    try:
        lines = STATUS.read_text(encoding="ascii").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        # Kilobytes on Linux, bytes on macOS.
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else 1024 * most
