"""Session graphs built one session at a time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch

from kernels.session_graph import ClickNodes, SessionGraph


def dictionary_loop(sessions: Sequence[Sequence[int]]) -> ClickNodes:
    """The shortest Python that gives the same nodes and edges."""
    click_nodes: list[int] = []
    node_items: list[int] = []
    node_clicks: list[int] = []
    node_offsets = [0]
    last_node: list[int] = []
    edges: list[tuple[int, int]] = []
    weights: list[int] = []
    for session in sessions:
        place: dict[int, int] = {}
        for item in session:
            if item not in place:
                place[item] = len(node_items)
                node_items.append(item)
                node_clicks.append(0)
            node_clicks[place[item]] += 1
        nodes = [place[item] for item in session]
        click_nodes += nodes
        node_offsets.append(len(node_items))
        last_node.append(nodes[-1] if nodes else -1)
        links: dict[tuple[int, int], int] = {}
        for link in pairwise(nodes):
            links[link] = links.get(link, 0) + 1
        for link in sorted(links):
            edges.append(link)
            weights.append(links[link])
    source_target = torch.tensor(edges, dtype=torch.int64).view(-1, 2)
    graph = SessionGraph(
        node_offsets=torch.tensor(node_offsets),
        edge_source=source_target[:, 0].contiguous(),
        edge_target=source_target[:, 1].contiguous(),
        edge_weight=torch.tensor(weights, dtype=torch.float32),
        node_clicks=torch.tensor(node_clicks, dtype=torch.float32),
        last_node=torch.tensor(last_node, dtype=torch.int64),
    )
    return ClickNodes(graph, torch.tensor(node_items, dtype=torch.int64), torch.tensor(click_nodes, dtype=torch.int64))


def padded_adjacency_loop(
    sessions: Sequence[Sequence[int]],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """What SR-GNN's published code feeds its layer.

    Returns:
        Normalised in- and out-adjacency, float32 [B, n, 2n], and the node of each click within its session, int64
        [B, longest]; padded with zeros.
    """
    nodes = [list(dict.fromkeys(session)) for session in sessions]
    widest, longest = max(map(len, nodes)), max(map(len, sessions))
    adjacency = np.zeros((len(sessions), widest, 2 * widest), dtype=np.float32)
    alias = np.zeros((len(sessions), longest), dtype=np.int64)
    for number, session in enumerate(sessions):
        place = {item: i for i, item in enumerate(nodes[number])}
        steps = [place[item] for item in session]
        links = np.zeros((widest, widest), dtype=np.float32)
        links[steps[:-1], steps[1:]] = 1.0
        adjacency[number, :, :widest] = (links / np.maximum(links.sum(0), 1.0)).T
        adjacency[number, :, widest:] = links / np.maximum(links.sum(1), 1.0)[:, None]
        alias[number, : len(steps)] = steps
    return adjacency, alias
