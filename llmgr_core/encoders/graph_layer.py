"""Weights of the gated layer as a module, folded once where they no longer change."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Self

import torch

from kernels.gated_graph import FoldedGraphWeights, GatedGraphWeights, folded
from llmgr_core.encoders.weights import KernelWeights


class GraphLayerWeights(KernelWeights[GatedGraphWeights]):
    """Gives the weights as they are, and after ``freeze`` folded ones, which were made once.

    A fold never outlives the weights that it was made of: training mode, a call that asks for gradients, loading other
    weights and writing into them each end it; on its way to another device or dtype the module folds again.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__(GatedGraphWeights.initial(dimension))
        self._folded: FoldedGraphWeights | None = None
        self._folded_at: list[int] = []

    def freeze(self) -> None:
        """Fold now, for all calls to come; not for the witness torch_scatter, which takes the weights as they are."""
        if os.environ.get("LLMGR_KERNELS") == "torch_scatter":
            return
        # Tensors of the inference mode could not be used outside of it.
        with torch.inference_mode(False), torch.no_grad():
            self._folded = folded(super().forward())
        self._folded_at = self._versions()

    def forward(self) -> GatedGraphWeights | FoldedGraphWeights:  # type: ignore[override]
        if self._folded is None:
            return super().forward()
        learning = torch.is_grad_enabled() and any(one.requires_grad for one in self.parameters())
        if learning or self._versions() != self._folded_at:
            self._folded = None
            return super().forward()
        return self._folded

    def train(self, mode: bool = True) -> Self:
        if mode:
            self._folded = None
        return super().train(mode)

    def _versions(self) -> list[int]:
        """How often torch has seen each weight written into."""
        return [one._version for one in self.parameters()]

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self._folded is not None:
            self.freeze()
        return self

    def _load_from_state_dict(self, *arguments: Any, **options: Any) -> None:
        self._folded = None
        super()._load_from_state_dict(*arguments, **options)
