"""Operators of torch that on a GPU make the host wait."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class WaitsFound(TorchDispatchMode):
    """Notes operators whose result the host must know before it goes on, or that bring its data along: no graph can hold them.

    Attributes:
        seen: all operators, in order.
        found: those among them.
    """

    FORBIDDEN = (
        "_local_scalar_dense",
        "item",
        "nonzero",
        "masked_select",
        "_unique",
        "unique",
        "bincount",
        "lift_fresh",
        "repeat_interleave",
    )

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.found: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function).removeprefix("aten.")
        self.seen.append(name)
        # repeat_interleave knows its size where the caller says it.
        waits = name.split(".")[0] in self.FORBIDDEN and (kwargs or {}).get("output_size") is None
        # A mask as an index is counted first.
        chosen = args[1] if name.startswith("index.") else ()
        if waits or any(index is not None and index.dtype == torch.bool for index in chosen):
            self.found.append(name)
        return function(*args, **(kwargs or {}))
