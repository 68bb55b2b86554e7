"""A batch of sessions as the encoders take it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from kernels.session_graph import SessionGraph, build_session_graph
from llmgr_core.sessions import Sessions


@dataclass(frozen=True, eq=False)
class SessionBatch:
    """B sessions, ragged: their clicks and their graphs.

    Attributes:
        clicks: int64 [T], item of each click, session after session.
        click_offsets: int64 [B + 1]; session b is ``clicks[click_offsets[b]:click_offsets[b + 1]]``.
        node_items: int64 [N], item of each node: the rows of the item table to fetch.
        click_nodes: int64 [T], global node position of each click.
        graph: the session graphs with N nodes.
    """

    clicks: torch.Tensor
    click_offsets: torch.Tensor
    node_items: torch.Tensor
    click_nodes: torch.Tensor
    graph: SessionGraph

    @property
    def num_sessions(self) -> int:
        """B."""
        return self.graph.num_sessions

    @property
    def device(self) -> torch.device:
        """Where all tensors stand."""
        return self.clicks.device

    @classmethod
    def from_sessions(
        cls, sessions: Sessions, max_clicks: int | None = None, device: torch.device | str = "cpu"
    ) -> SessionBatch:
        """Build the graphs of these sessions, each cut to its last ``max_clicks`` clicks.

        Args:
            sessions: any number, empty ones included.
            max_clicks: at least 1; None keeps all clicks.
            device: where the tensors go.

        Raises:
            ValueError: ``max_clicks`` is less than 1, or an item is negative.
        """
        if max_clicks is not None and max_clicks < 1:
            raise ValueError(f"max_clicks={max_clicks} is less than 1")
        if max_clicks is not None and len(sessions) and sessions.lengths.max() > max_clicks:
            sessions = _last_clicks(sessions, max_clicks)
        items = sessions.items.astype(np.int64)
        offsets = np.ascontiguousarray(sessions.offsets, dtype=np.int64)
        built = build_session_graph(items, offsets)
        batch = cls(torch.from_numpy(items), torch.tensor(offsets), built.node_items, built.click_nodes, built.graph)
        return batch.to(device)

    def to(self, device: torch.device | str) -> SessionBatch:
        """The same batch on another device."""
        if self.device == torch.device(device):
            return self
        return SessionBatch(
            self.clicks.to(device),
            self.click_offsets.to(device),
            self.node_items.to(device),
            self.click_nodes.to(device),
            self.graph.to(device),
        )


def _last_clicks(sessions: Sessions, max_clicks: int) -> Sessions:
    lengths = np.minimum(sessions.lengths, max_clicks)
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    places = np.arange(offsets[-1]) + np.repeat(sessions.offsets[1:] - offsets[1:], lengths)
    return Sessions(sessions.items[places], offsets)
