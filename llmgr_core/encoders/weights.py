"""Weights of a kernels function as a module, so that optimizers and files see them."""

from __future__ import annotations

from typing import Any, Generic, NamedTuple, TypeVar, cast

from torch import Tensor, nn

WeightsTuple = TypeVar("WeightsTuple", bound=NamedTuple)


class KernelWeights(nn.Module, Generic[WeightsTuple]):
    """Parameters named after the fields of a weights tuple of ``kernels``; calling the module gives the tuple.

    Args:
        initial: fresh tensors.
    """

    def __init__(self, initial: WeightsTuple) -> None:
        super().__init__()
        self._kind: type[Any] = type(initial)
        for name, tensor in cast("Any", initial)._asdict().items():
            self.register_parameter(name, nn.Parameter(tensor))

    def forward(self) -> WeightsTuple:
        tensors: list[Tensor] = [getattr(self, name) for name in self._kind._fields]
        return cast("WeightsTuple", self._kind(*tensors))
