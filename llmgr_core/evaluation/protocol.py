"""What a reader must know to believe, and to repeat, a number."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

import llmgr_core


def protocol(data_protocol: dict[str, Any], *, seed: int, **more: Any) -> dict[str, Any]:
    """The protocol that stands in every result.

    Args:
        data_protocol: ``Dataset.protocol``: how the data was filtered and split.
        seed: seed of the run.
        more: further facts (resamples, batch size, ...).
    """
    return {
        "data": data_protocol,
        "ranking": "over all items of the catalogue, none sampled",
        "masking": "both: items of the prefix left out (masked) and left in (unmasked); a masked target counts as a miss",
        "ties": "expected rank: 1 + items above + other items level / 2",
        "buckets": "by the target's clicks in the training sessions",
        "seed": seed,
        **more,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "commit": commit(),
        "version": llmgr_core.__version__,
        "machine": machine(),
    }


def commit() -> str | None:
    """Commit of the source tree this runs from, with "+changes" where it differs; None outside a git checkout.

    Results that an earlier command of the same checkout wrote are no difference.
    """
    root = Path(llmgr_core.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+changes" if changed else "")


def machine() -> dict[str, Any]:
    """Processor, cores, threads and versions of the machine this runs on; nothing that names it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts: dict[str, Any] = {
        "processor": _processor(),
        "cores": cores,
        "torch_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.system(),
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def _git(root: Path, *arguments: str) -> str:
    result = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10)
    return result.stdout.strip()


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
