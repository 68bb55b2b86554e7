"""What is measured: an op at a size, the ways to compute it, and its float64 result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from kernels.benchmark.request import RequestMemory
from kernels.benchmark.sessions import SessionSource

Tensors = Sequence[torch.Tensor]
OURS = "ours"


class Deviation(NamedTuple):
    """How far a result is from the float64 reference; the worst of its tensors.

    Attributes:
        maximum: largest deviation over the largest value.
        rms: root mean square of the deviation over that of the values.
    """

    maximum: float
    rms: float


# What a dtype allows, on sums as long as those of these ops: root mean square and, ten times that, the largest deviation.
# On CUDA float32 products may be made of three TF32 ones, or of one.
ALLOWED_RMS = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}
ALLOWED_RMS_TF32 = 3e-3


@dataclass(frozen=True)
class Way:
    """One way to compute the op.

    Attributes:
        name: ``ours``, or the baseline's.
        call: takes the case's streamed tensors by keyword; returns the result.
        missing: why it cannot run here; empty where it can.
        takes_bytes: memory it needs beyond the inputs, where that may be too much.
        captured: on CUDA, timed inside a CUDA graph; plain calls otherwise, as its users make them.
        own_graph: on CUDA, it captures a CUDA graph by itself, and so is timed by plain calls.
        compiled: by torch.compile, whose operations the counter cannot see on a CPU.
        check: of its result, where that is not the case's; a way that computes something else (a plain read) has ``no_check``.
    """

    name: str
    call: Callable[..., Any]
    missing: str = ""
    takes_bytes: float = 0.0
    captured: bool = False
    own_graph: bool = False
    compiled: bool = False
    check: Callable[[Any], Deviation] | None = None


@dataclass(frozen=True)
class Prepared:
    """A case with its tensors: one set-up for speed, memory and correctness.

    Attributes:
        streamed: the large inputs, by keyword; copies of them are taken in turn on CUDA, so that they come from memory.
        ways: ours first.
        check: of a result against float64.
        request: where the op is a request, what the host sends for each; the ways read it there and give one tensor, which the
            host fetches. It is timed by the host's clock, with inputs where a server has them.
    """

    streamed: Mapping[str, torch.Tensor]
    ways: Sequence[Way]
    check: Callable[[Any], Deviation]
    request: RequestMemory | None = None


@dataclass(frozen=True)
class Case:
    """An op at a size.

    Attributes:
        op: its name, e.g. "gated_layers".
        shape: its size in words, e.g. "B=1024 L=1".
        moved_bytes: what any implementation must read and write once.
        flop: what any implementation must multiply and add.
        prepare: makes the tensors.
        facts: numbers of the drawn input, e.g. nodes and edges.
        on_host: whether the host does all of it, whatever the device.
    """

    op: str
    shape: str
    moved_bytes: float
    flop: float
    prepare: Callable[[], Prepared]
    facts: Mapping[str, float] = field(default_factory=dict)
    on_host: bool = False


@dataclass(frozen=True)
class Setting:
    """Where and how large.

    Attributes:
        device: that runs the ops.
        dtype: of vectors, tables and weights.
        scale: ``tiny`` (tests), ``quick`` or ``full``.
        sessions: where session shapes come from.
        compile: whether torch.compile is among the baselines.
        memory_bytes: what one way may take.
    """

    device: torch.device
    dtype: torch.dtype
    scale: str
    sessions: SessionSource
    compile: bool
    memory_bytes: float

    def size(self, tiny: Any, quick: Any, full: Any) -> Any:
        """The one of the three that ``scale`` asks for."""
        return {"tiny": tiny, "quick": quick, "full": full}[self.scale]

    @property
    def item_bytes(self) -> int:
        """Of one number of ``dtype``."""
        return self.dtype.itemsize

    def place(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor on the device, in the dtype if it holds floats."""
        return tensor.to(self.device, self.dtype) if tensor.is_floating_point() else tensor.to(self.device)

    def random(self, *shape: int, seed: int = 0) -> torch.Tensor:
        """Normal numbers, the same on every run of a device."""
        generator = torch.Generator(self.device).manual_seed(seed)
        return torch.randn(*shape, generator=generator, device=self.device, dtype=torch.float32).to(self.dtype)

    @property
    def allowed(self) -> Deviation:
        """The largest deviation that still counts as right."""
        rms = ALLOWED_RMS[self.dtype]
        if self.dtype == torch.float32 and self.device.type == "cuda":
            rms = ALLOWED_RMS_TF32
        return Deviation(10 * rms, rms)


def deviation(found: Tensors, expected: Tensors) -> Deviation:
    """Of tensors from float64 ones; infinite where shapes differ or a result holds NaN."""
    worst = Deviation(0.0, 0.0)
    if len(found) != len(expected):
        return Deviation(float("inf"), float("inf"))
    for one, exact in zip(found, expected, strict=True):
        if one.shape != exact.shape or bool(one.isnan().any()):
            return Deviation(float("inf"), float("inf"))
        if one.numel() == 0:
            continue
        difference = one.detach().to(torch.float64) - exact.detach()
        largest = max(float(exact.detach().abs().max()), 1e-30)
        square_mean = max(float(exact.detach().square().mean().sqrt()), 1e-30)
        worst = Deviation(
            max(worst.maximum, float(difference.abs().max()) / largest),
            max(worst.rms, float(difference.square().mean().sqrt()) / square_mean),
        )
    return worst


def against(expected: Tensors) -> Callable[[Any], Deviation]:
    """A check of a tensor, or of several, against float64 ones."""
    return lambda result: deviation([result] if isinstance(result, torch.Tensor) else list(result), expected)


def no_check(_: Any) -> Deviation:
    """For a way that computes something simpler, shown as a mark."""
    return Deviation(0.0, 0.0)
