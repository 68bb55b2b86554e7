"""Batches of examples, epoch after epoch, in an order that a seed fixes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import torch

from llmgr_core.graphs.session_batch import SessionBatch
from llmgr_core.sessions import Examples


class LoaderState(TypedDict):
    """Where a loader stands; plain numbers, so that it goes into JSON."""

    seed: int
    epoch: int
    batch: int
    examples: int
    batch_size: int


class ExampleLoader:
    """Cut examples into batches and build their session graphs.

    Iterating runs through the rest of the current epoch; after its end the next iteration is the next epoch. The order of an
    epoch depends on (seed, epoch) alone, so a loader that takes over the state of another goes on with the very batches the
    other would have given. ``state()`` counts a batch as done as soon as it has been handed out: a checkpoint
    written after the step on that batch does not repeat it.

    Args:
        examples: at least one.
        batch_size: B; the last batch of an epoch may be smaller.
        max_clicks: prefixes are cut to their last clicks; None keeps all.
        shuffle: draw a new order for each epoch; else the order of the examples.
        seed: of the order.
        device: where graphs and targets go.

    Raises:
        ValueError: no examples, or a batch size below 1.
    """

    def __init__(
        self,
        examples: Examples,
        batch_size: int,
        max_clicks: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        if len(examples) == 0:
            raise ValueError("no examples to load")
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} is less than 1")
        self.examples = examples
        self.batch_size = batch_size
        self.max_clicks = max_clicks
        self.shuffle = shuffle
        self.seed = seed
        self.device = device
        self.epoch = 0
        self.batch = 0

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return (len(self.examples) + self.batch_size - 1) // self.batch_size

    def __iter__(self) -> Iterator[tuple[SessionBatch, torch.Tensor, torch.Tensor]]:
        """The rest of this epoch: (batch, targets int64 [B], place of each example int64 [B] on the CPU)."""
        order = self.order(self.epoch)
        while self.batch < len(self):
            chosen = order[self.batch * self.batch_size : (self.batch + 1) * self.batch_size]
            self.batch += 1
            part = self.examples.select(chosen)
            session_batch = SessionBatch.from_sessions(part.prefixes(self.max_clicks), device=self.device)
            targets = torch.from_numpy(part.targets.astype(np.int64)).to(self.device)
            yield session_batch, targets, torch.from_numpy(chosen)
        self.epoch += 1
        self.batch = 0

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """int64 [n], places of the examples in the order in which that epoch takes them."""
        if not self.shuffle:
            return np.arange(len(self.examples), dtype=np.int64)
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.examples))

    def state(self) -> LoaderState:
        """What ``load_state`` needs to go on from here."""
        return LoaderState(
            seed=self.seed, epoch=self.epoch, batch=self.batch, examples=len(self.examples), batch_size=self.batch_size
        )

    def load_state(self, state: LoaderState) -> None:
        """Go on where another loader of the same examples stood.

        Raises:
            ValueError: the other loader had other examples, another seed or another batch size.
        """
        mine = self.state()
        for name in ("seed", "examples", "batch_size"):
            if state[name] != mine[name]:
                raise ValueError(f"the saved loader had {name}={state[name]}, this one has {mine[name]}")
        self.epoch, self.batch = state["epoch"], state["batch"]
