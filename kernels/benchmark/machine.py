"""What a reader must know to believe, and to repeat, a figure; nothing that names the machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

NO_GPU = "no GPU here: the CPU paths are measured, against the same baselines; no figure below is a GPU's"


def versions() -> dict[str, str | None]:
    """Of what the figures depend on; None where it is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in ("torch", "triton", "numpy", "torch_scatter", "torch_geometric"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def machine(device: torch.device) -> dict[str, Any]:
    """Processor, cores, threads, and on CUDA the GPU and its driver."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts: dict[str, Any] = {
        "system": platform.system(),
        "processor": _processor(),
        "cores": cores,
        "threads": torch.get_num_threads(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "gpu": properties.name,
            "gpu_memory_bytes": properties.total_memory,
            "l2_bytes": properties.L2_cache_size,
            "driver": _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
            "cuda": torch.version.cuda,
        }
    return facts


def device_line(device: torch.device) -> str:
    """The first line of every output."""
    return f"measured on {torch.cuda.get_device_name(device)}" if device.type == "cuda" else NO_GPU


def commit() -> str | None:
    """Commit of the source tree, with "+changes" where it differs; None outside a git checkout."""
    root = Path(__file__).resolve().parents[2]
    head = _output("git", "-C", str(root), "rev-parse", "HEAD") if (root / ".git").exists() else None
    changed = head and _output("git", "-C", str(root), "status", "--porcelain", "--untracked-files=no")
    return head + ("+changes" if changed else "") if head else None


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
