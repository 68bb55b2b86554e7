"""Which implementation of an op runs: the variable LLMGR_KERNELS decides, the device otherwise."""

from __future__ import annotations

import functools
import os
import warnings

import torch

CHOICES = ("auto", "torch", "torch_scatter", "triton")
# What the kernels take, by Triton's names.
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
FLOATS_OF_TRITON = tuple(DTYPES.values())


def interpreting() -> bool:
    """Whether Triton kernels run in Triton's interpreter (TRITON_INTERPRET=1): on the CPU, slowly, to be checked."""
    return os.environ.get("TRITON_INTERPRET", "") in ("1", "true", "True", "on")


@functools.cache
def _say_once(op: str, reason: str) -> None:
    warnings.warn(f"{op} takes torch's path on this GPU: {reason}", RuntimeWarning, stacklevel=4)


def chosen_path(op: str, paths: tuple[str, ...], tensor: torch.Tensor, unsupported: str = "") -> str:
    """Name of the path that ``op`` takes.

    ``LLMGR_KERNELS`` is read at each call, so that a test or a benchmark can change it:

    - ``auto`` (default): Triton on a CUDA device, the fast torch path on a CPU. What a kernel does not take (``unsupported``,
      and float64, which GPUs of this class compute too slowly to be worth a kernel) goes to the torch path, with a warning
      the first time.
    - ``torch``: the torch path everywhere.
    - ``torch_scatter``: for an op that has it (the gated layer); an op without it takes ``torch``.
    - ``triton``: Triton or an error; on a CPU only under Triton's interpreter, where float64 works too.

    Args:
        op: name of the op, for messages.
        paths: the paths this op has, ``torch`` among them.
        tensor: the main input; its device and dtype decide.
        unsupported: why the Triton kernel cannot take this call; empty where it can.

    Raises:
        ValueError: the variable holds an unknown name, or ``triton`` where the kernel cannot run; the message says why.
    """
    choice = os.environ.get("LLMGR_KERNELS", "auto")
    if choice not in CHOICES:
        raise ValueError(f"LLMGR_KERNELS={choice!r} is none of {', '.join(CHOICES)}")
    if choice == "auto":
        if "triton" not in paths or not tensor.is_cuda:
            return "torch"
        if tensor.dtype not in FLOATS_OF_TRITON:
            unsupported = unsupported or f"it does not take {tensor.dtype}"
        if unsupported:
            _say_once(op, unsupported)
        return "torch" if unsupported else "triton"
    if choice == "triton":
        if "triton" not in paths:
            unsupported = "it has no Triton kernel"
        elif not tensor.is_cuda and not interpreting():
            unsupported = f"its tensors are on {tensor.device}, and TRITON_INTERPRET=1 is not set"
        elif tensor.dtype not in FLOATS_OF_TRITON and not interpreting():
            unsupported = f"it does not take {tensor.dtype}"
        if unsupported:
            raise ValueError(f"LLMGR_KERNELS='triton', but {op}: {unsupported}; set LLMGR_KERNELS to auto or torch")
    return choice if choice in paths else "torch"
