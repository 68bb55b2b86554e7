"""The directed graph of every click session in a batch, ragged and flat."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from kernels.session_tiles import SessionTiles, pack_tiles


@dataclass(frozen=True, eq=False)
class SessionGraph:
    """B session graphs side by side: unique items are nodes, consecutive clicks are directed edges.

    Nodes of a session stand together, in the order of their first click. Edges stand sorted by (source, target), so those
    of a session stand together too. A session without clicks has no node.

    Attributes:
        node_offsets: int64 [B + 1]; the nodes of session s are ``node_offsets[s]:node_offsets[s + 1]``.
        edge_source: int64 [E], global node position u of each distinct directed edge (u, v); self-loops included.
        edge_target: int64 [E], global node position v.
        edge_weight: float32 [E], multiplicity: how often v followed u in the session.
        node_clicks: float32 [N], how often the node was clicked.
        last_node: int64 [B], node of the last click; -1 for an empty session.
    """

    node_offsets: torch.Tensor
    edge_source: torch.Tensor
    edge_target: torch.Tensor
    edge_weight: torch.Tensor
    node_clicks: torch.Tensor
    last_node: torch.Tensor

    @property
    def num_sessions(self) -> int:
        """B."""
        return len(self.last_node)

    @property
    def num_nodes(self) -> int:
        """N, over all sessions."""
        return len(self.node_clicks)

    @property
    def num_edges(self) -> int:
        """E, over all sessions."""
        return len(self.edge_source)

    @property
    def device(self) -> torch.device:
        """Where all tensors stand."""
        return self.node_offsets.device

    @cached_property
    def node_session(self) -> torch.Tensor:
        """int64 [N], the session each node belongs to."""
        sessions = torch.arange(self.num_sessions, device=self.device)
        return torch.repeat_interleave(sessions, self.node_offsets.diff(), output_size=self.num_nodes)

    @cached_property
    def source_offsets(self) -> torch.Tensor:
        """int64 [N + 1]; the edges that leave node u are ``source_offsets[u]:source_offsets[u + 1]``."""
        return _offsets_of_sorted(self.edge_source, self.num_nodes)

    @cached_property
    def target_order(self) -> torch.Tensor:
        """int64 [E], the edges sorted by (target, source)."""
        return torch.argsort(self.edge_target, stable=True)

    @cached_property
    def target_offsets(self) -> torch.Tensor:
        """int64 [N + 1]; the edges that reach node v are ``target_order[target_offsets[v]:target_offsets[v + 1]]``."""
        return _offsets_of_sorted(self.edge_target[self.target_order], self.num_nodes)

    @cached_property
    def tiles(self) -> SessionTiles:
        """The sessions packed into tiles of 64 nodes, with bit masks of their edges (built on first use, on the CPU)."""
        return pack_tiles(self.node_offsets, self.edge_source, self.edge_target)

    @cached_property
    def weighted_tiles(self) -> SessionTiles:
        """The same with multiplicities.

        Raises:
            ValueError: a multiplicity is no whole number.
        """
        return pack_tiles(self.node_offsets, self.edge_source, self.edge_target, self.edge_weight)

    def to(self, device: torch.device | str) -> SessionGraph:
        """The same graph on another device, with everything already built from it.

        On the way to a GPU both kinds of tiles are built first, since only the layer knows which it takes: there, building
        them would wait for the device.
        """
        device = torch.device(device)
        if self.device == device:
            return self
        if device.type == "cuda":
            _ = self.tiles
            if bool((self.edge_weight == self.edge_weight.round()).all()):
                _ = self.weighted_tiles
        own = {field.name for field in fields(self)}
        moved = SessionGraph(**{name: getattr(self, name).to(device) for name in own})
        # cached_property keeps what it has built in the instance's dictionary.
        moved.__dict__.update({name: built.to(device) for name, built in self.__dict__.items() if name not in own})
        return moved


def _offsets_of_sorted(values: torch.Tensor, size: int) -> torch.Tensor:
    """int64 [size + 1]: where each of 0..size-1 begins in sorted ``values``."""
    offsets = torch.zeros(size + 1, dtype=torch.int64, device=values.device)
    torch.cumsum(torch.bincount(values, minlength=size), 0, out=offsets[1:])
    return offsets


@dataclass(frozen=True, eq=False)
class ClickNodes:
    """What the clicks of a batch became.

    Attributes:
        graph: the session graphs.
        node_items: int64 [N], item of each node.
        click_nodes: int64 [T], global node position of each click.
    """

    graph: SessionGraph
    node_items: torch.Tensor
    click_nodes: torch.Tensor


def build_session_graph(click_items: npt.NDArray[np.integer], click_offsets: npt.NDArray[np.integer]) -> ClickNodes:
    """Build the graphs of all sessions at once, with two sorts and no loop over sessions.

    Args:
        click_items: integer [T], item of each click, session after session; not negative.
        click_offsets: integer [B + 1]; the clicks of session s are ``click_offsets[s]:click_offsets[s + 1]``.

    Returns:
        Graph, items of nodes and nodes of clicks, on the CPU.

    Raises:
        ValueError: offsets do not run from 0 to T without falling, or an item is negative.
    """
    items = click_items.astype(np.int64, copy=False)
    offsets = click_offsets.astype(np.int64, copy=False)
    lengths = np.diff(offsets)
    if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != len(items) or (lengths < 0).any():
        raise ValueError(f"offsets must rise from 0 to the {len(items)} clicks")
    if len(items) and items.min() < 0:
        raise ValueError(f"item {items.min()} is negative")

    first_click, click_nodes = _nodes_of_clicks(items, lengths)
    node_positions = np.flatnonzero(first_click)
    nodes_before = np.zeros(len(items) + 1, dtype=np.int64)
    np.cumsum(first_click, out=nodes_before[1:])
    last_node = np.full(len(lengths), -1, dtype=np.int64)
    filled = lengths > 0
    last_node[filled] = click_nodes[offsets[1:][filled] - 1]
    edge_source, edge_target, edge_weight = _edges(click_nodes, offsets, filled, len(node_positions))
    graph = SessionGraph(
        node_offsets=torch.from_numpy(nodes_before[offsets]),
        edge_source=torch.from_numpy(edge_source),
        edge_target=torch.from_numpy(edge_target),
        edge_weight=torch.from_numpy(edge_weight),
        node_clicks=torch.from_numpy(np.bincount(click_nodes, minlength=len(node_positions)).astype(np.float32)),
        last_node=torch.from_numpy(last_node),
    )
    return ClickNodes(graph, torch.from_numpy(items[node_positions]), torch.from_numpy(click_nodes))


def _nodes_of_clicks(
    items: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Whether a click is the first on its node (bool [T]), and the node of each click (int64 [T])."""
    total = len(items)
    if total == 0:
        return np.zeros(0, dtype=np.bool_), np.zeros(0, dtype=np.int64)
    # One sort of (session, item, position) packed in 63 bits; a plain sort is several times faster than an argsort.
    item_span = int(items.max()) + 1
    position_bits = max(1, (total - 1).bit_length())
    session = np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)
    if (item_span * len(lengths)).bit_length() + position_bits <= 63:
        session *= item_span
        session += items
        session <<= position_bits
        session |= np.arange(total, dtype=np.int64)
        session.sort()
        position = session & ((1 << position_bits) - 1)
        session >>= position_bits
        starts_group = np.empty(total, dtype=np.bool_)
        starts_group[0] = True
        np.not_equal(session[1:], session[:-1], out=starts_group[1:])
    else:
        position = np.lexsort((items, session))
        starts_group = np.ones(total, dtype=np.bool_)
        starts_group[1:] = (np.diff(session[position]) != 0) | (np.diff(items[position]) != 0)
    first_of_group = np.flatnonzero(starts_group)
    first_position = position[first_of_group]
    first_click = np.zeros(total, dtype=np.bool_)
    first_click[first_position] = True
    node_at = np.cumsum(first_click, dtype=np.int64) - 1
    if len(first_position) == total:
        return first_click, node_at
    click_nodes = np.empty(total, dtype=np.int64)
    click_nodes[position] = np.repeat(node_at[first_position], np.diff(first_of_group, append=total))
    return first_click, click_nodes


def _edges(
    click_nodes: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64], filled: npt.NDArray[np.bool_], num_nodes: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Distinct (source, target) pairs of consecutive clicks, sorted, with their multiplicity."""
    within = np.ones(len(click_nodes), dtype=np.bool_)
    within[offsets[1:][filled] - 1] = False
    place = np.flatnonzero(within)
    source, target = click_nodes[place], click_nodes[np.minimum(place + 1, len(click_nodes) - 1)]
    if len(click_nodes) == num_nodes:
        # No item twice in a session: every pair is distinct and already in order.
        return source, target, np.ones(len(source), dtype=np.float32)
    # Shifted, not multiplied: taking pairs apart again by a division would cost as much as the sort.
    target_bits = num_nodes.bit_length()
    pairs = source << target_bits
    pairs |= target
    pairs.sort()
    starts_group = np.ones(len(pairs), dtype=np.bool_)
    np.not_equal(pairs[1:], pairs[:-1], out=starts_group[1:])
    place = np.flatnonzero(starts_group)
    weight = np.diff(np.append(place, len(pairs))).astype(np.float32)
    distinct = pairs[place]
    return distinct >> target_bits, distinct & ((1 << target_bits) - 1), weight
