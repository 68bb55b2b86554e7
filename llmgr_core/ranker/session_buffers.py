"""One session as tensors of fixed sizes, all in one piece of memory: what a captured graph reads, sent in one copy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from kernels import RaggedItems, RaggedScores, build_session_graph
from kernels.session_graph import SessionGraph
from kernels.session_tiles import TILE_NODES, SessionTiles, pack_tiles
from llmgr_core.graphs import SessionBatch

# A tile of nodes, less one for the padding.
LONGEST_SESSION = TILE_NODES - 1
ALIGNMENT = 16

Indices = npt.NDArray[np.int64]


class Sizes(NamedTuple):
    """Fixed sizes of a session's tensors.

    Attributes:
        clicks: at most LONGEST_SESSION.
        listed: exclusions, and transition terms, each.
        candidates: 0 for the whole catalogue.
        k: length of the ranking.
    """

    clicks: int
    listed: int
    candidates: int
    k: int


class SessionBuffers:
    """Tensors of one session beside a second one that takes all padding: its nodes are the spare row, and nobody reads it.

    Args:
        sizes: of the tensors.
        device: where they stand; filled from the host's memory.
        weighted: edges carry multiplicities.
    """

    def __init__(self, sizes: Sizes, device: torch.device, weighted: bool) -> None:
        self.sizes = sizes
        self._weighted = weighted
        clicks, nodes, digits = sizes.clicks, sizes.clicks + 1, sizes.clicks.bit_length() if weighted else 1
        shapes: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
            "clicks": (torch.int64, (clicks,)),
            "click_nodes": (torch.int64, (clicks,)),
            "click_offsets": (torch.int64, (3,)),
            "node_items": (torch.int64, (nodes,)),
            "node_offsets": (torch.int64, (3,)),
            "node_clicks": (torch.float32, (nodes,)),
            "last_node": (torch.int64, (2,)),
            "edge_source": (torch.int64, (clicks,)),
            "edge_target": (torch.int64, (clicks,)),
            "edge_weight": (torch.float32, (clicks,)),
            "planes": (torch.int32, (digits, nodes, 2)),
            "degrees": (torch.int32, (nodes, 2)),
            "excluded": (torch.int64, (sizes.listed,)),
            "excluded_offsets": (torch.int64, (2,)),
            "extra_items": (torch.int64, (sizes.listed,)),
            "extra_values": (torch.float32, (sizes.listed,)),
            "extra_offsets": (torch.int64, (2,)),
            "candidates": (torch.int64, (sizes.candidates,)),
            "candidate_offsets": (torch.int64, (2,)),
        }
        places, total = {}, 0
        for name, (dtype, shape) in shapes.items():
            places[name] = total
            total += -(-dtype.itemsize * int(np.prod(shape)) // ALIGNMENT) * ALIGNMENT
        self._host = torch.zeros(total, dtype=torch.uint8, pin_memory=device.type == "cuda")
        self._device = torch.zeros(total, dtype=torch.uint8, device=device) if device.type == "cuda" else self._host

        def carved(memory: torch.Tensor) -> dict[str, torch.Tensor]:
            parts = {}
            for name, (dtype, shape) in shapes.items():
                size = dtype.itemsize * int(np.prod(shape))
                parts[name] = memory[places[name] : places[name] + size].view(dtype).view(shape)
            return parts

        self._written = {name: part.numpy() for name, part in carved(self._host).items()}
        self._read = carved(self._device)
        # One tile holds both sessions, whatever their sizes.
        self._tile_offsets = torch.tensor([[0, nodes]], device=device)
        self._wide_blocks = torch.zeros((0, 5), dtype=torch.int64, device=device)

    def fill(
        self,
        clicks: Indices,
        excluded: Indices,
        extra_items: Indices,
        extra_values: npt.NDArray[np.float32],
        candidates: Indices | None,
        spare: int,
    ) -> None:
        """Write a session on the host, and begin to send it.

        Args:
            clicks: int64 [t], 1 <= t <= sizes.clicks.
            excluded: int64, at most sizes.listed.
            extra_items, extra_values: transition terms, at most sizes.listed.
            candidates: int64, at most sizes.candidates; None where that is 0.
            spare: an item that padding may name.
        """
        into, sizes = self._written, self.sizes
        built = build_session_graph(clicks, np.array([0, len(clicks)]))
        graph = built.graph
        real, nodes = graph.num_nodes, sizes.clicks + 1
        _put(into["clicks"], clicks, spare)
        _put(into["click_nodes"], built.click_nodes.numpy(), real)
        into["click_offsets"][:] = 0, len(clicks), sizes.clicks
        _put(into["node_items"], built.node_items.numpy(), spare)
        into["node_offsets"][:] = 0, real, nodes
        _put(into["node_clicks"], graph.node_clicks.numpy(), 1.0)
        into["last_node"][:] = int(graph.last_node[0]), real
        _put(into["edge_source"], graph.edge_source.numpy(), real)
        _put(into["edge_target"], graph.edge_target.numpy(), real)
        _put(into["edge_weight"], graph.edge_weight.numpy(), 1.0)
        offsets = torch.from_numpy(into["node_offsets"])
        tiles = pack_tiles(offsets, graph.edge_source, graph.edge_target, graph.edge_weight if self._weighted else None)
        into["planes"][len(tiles.planes) :] = 0
        into["planes"][: len(tiles.planes)] = tiles.planes.numpy()
        into["degrees"][:] = tiles.degrees.numpy()
        for name, items in (("excluded", excluded), ("extra_items", extra_items)):
            _put(into[name], items, spare)
        _put(into["extra_values"], extra_values, 0.0)
        into["excluded_offsets"][1], into["extra_offsets"][1] = len(excluded), len(extra_items)
        if candidates is not None:
            _put(into["candidates"], candidates, spare)
            into["candidate_offsets"][1] = len(candidates)
        if self._device is not self._host:
            self._device.copy_(self._host, non_blocking=True)

    def batch(self) -> SessionBatch:
        """Both sessions on the device; nothing is computed."""
        read = self._read
        names = ("node_offsets", "edge_source", "edge_target", "edge_weight", "node_clicks", "last_node")
        tiles = SessionTiles(self._tile_offsets, self._wide_blocks, read["planes"], read["degrees"])
        graph = SessionGraph(*[read[name] for name in names])
        # Where the graph keeps tiles that it has built itself.
        graph.__dict__["weighted_tiles" if self._weighted else "tiles"] = tiles
        return SessionBatch(read["clicks"], read["click_offsets"], read["node_items"], read["click_nodes"], graph)

    def excluded(self) -> RaggedItems:
        """Of the one session."""
        return RaggedItems(self._read["excluded"], self._read["excluded_offsets"])

    def extra(self) -> RaggedScores:
        """Transition terms of the one session."""
        return RaggedScores(self._read["extra_items"], self._read["extra_values"], self._read["extra_offsets"])

    def candidates(self) -> RaggedItems | None:
        """Of the one session; None for the whole catalogue."""
        if not self.sizes.candidates:
            return None
        return RaggedItems(self._read["candidates"], self._read["candidate_offsets"])


def _put(into: npt.NDArray[np.generic], values: npt.NDArray[np.generic], padding: float) -> None:
    into[: len(values)] = values
    into[len(values) :] = padding
