"""Which implementation of an op runs: the variable LLMGR_KERNELS decides, the device otherwise."""

from __future__ import annotations

import os

CHOICES = ("auto", "torch", "torch_scatter", "triton")


def chosen_path(op: str, paths: tuple[str, ...]) -> str:
    """Name of the path that ``op`` takes.

    ``LLMGR_KERNELS`` is ``auto`` (default: the fast torch path), ``torch``, ``torch_scatter`` or ``triton``. The variable
    is read at each call, so that a test or a benchmark can change it. ``torch_scatter`` holds for the gated layer only;
    an op without such a path takes ``torch`` then.

    Args:
        op: name of the op, for messages.
        paths: the paths this op has, ``torch`` among them.

    Raises:
        ValueError: the variable holds an unknown name, or ``triton``, which no op has in this version.
    """
    choice = os.environ.get("LLMGR_KERNELS", "auto")
    if choice not in CHOICES:
        raise ValueError(f"LLMGR_KERNELS={choice!r} is none of {', '.join(CHOICES)}")
    if choice == "triton" and "triton" not in paths:
        raise ValueError(
            f"LLMGR_KERNELS='triton': {op} has no Triton kernel, nor has any other op in this version; "
            "unset LLMGR_KERNELS, or set it to auto or torch"
        )
    return choice if choice in paths else "torch"
