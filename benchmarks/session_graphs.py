"""Building session graphs without a loop over sessions, beside two plain loops that build the same.

The first loop is the shortest Python that gives the same nodes and edges; the second builds what SR-GNN's published code feeds
its layer: a normalised adjacency matrix a session, padded to the batch's longest. All results are compared before any is timed,
and the three take turns, so that they meet the same machine.

    python benchmarks/session_graphs.py
    python benchmarks/session_graphs.py --sessions 512 --shortest 1 --longest 50 --out results.json
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from kernels.session_graph import ClickNodes, SessionGraph, build_session_graph
from llmgr_core.evaluation.protocol import commit, machine


def dictionary_loop(sessions: list[list[int]]) -> ClickNodes:
    """The same SessionGraph, one session after another."""
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
        last_node=torch.tensor(last_node),
    )
    return ClickNodes(graph, torch.tensor(node_items), torch.tensor(click_nodes))


def padded_adjacency_loop(sessions: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Normalised in- and out-adjacency [B, n, 2n] and node numbers of the clicks [B, longest], padded with zeros."""
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


def assert_same(built: ClickNodes, sessions: list[list[int]]) -> None:
    """Raise unless both loops say what the flat build says."""
    plain = dictionary_loop(sessions)
    for field in fields(SessionGraph):
        if not torch.equal(getattr(built.graph, field.name), getattr(plain.graph, field.name)):
            raise SystemExit(f"the builds differ in {field.name}: no time is reported")
    if not torch.equal(built.click_nodes, plain.click_nodes) or not torch.equal(built.node_items, plain.node_items):
        raise SystemExit("the builds differ in their nodes: no time is reported")
    adjacency, _ = padded_adjacency_loop(sessions)
    if int((adjacency[:, :, : adjacency.shape[1]] > 0).sum()) != built.graph.num_edges:
        raise SystemExit("the padded build has other edges: no time is reported")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=4096)
    parser.add_argument("--shortest", type=int, default=3, help="clicks; lengths are drawn evenly")
    parser.add_argument("--longest", type=int, default=20)
    parser.add_argument("--items", type=int, default=12_101, help="size of the catalogue the clicks are drawn from")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the figures here, as JSON")
    arguments = parser.parse_args()
    random = np.random.default_rng(arguments.seed)
    lengths = random.integers(arguments.shortest, arguments.longest + 1, arguments.sessions)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    # A third of the clicks go back to the item before the last: sessions repeat themselves.
    items = random.integers(0, arguments.items, offsets[-1])
    again = np.flatnonzero(random.random(len(items)) < 1 / 3)
    again = again[again - np.repeat(offsets[:-1], lengths)[again] >= 2]
    items[again] = items[again - 2]
    sessions = [items[begin:end].tolist() for begin, end in pairwise(offsets.tolist())]
    assert_same(build_session_graph(items, offsets), sessions)

    ways = {
        "flat build": lambda: build_session_graph(items, offsets),
        "flat build with edge masks": lambda: build_session_graph(items, offsets).graph.tiles,
        "dictionary loop": lambda: dictionary_loop(sessions),
        "padded adjacency loop": lambda: padded_adjacency_loop(sessions),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.repeats):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
    flat = float(np.median(seconds["flat build"]))
    figures = {
        name: {
            "median_ms": float(np.median(times)) * 1e3,
            "p20_ms": float(np.quantile(times, 0.2)) * 1e3,
            "p80_ms": float(np.quantile(times, 0.8)) * 1e3,
            "best_ms": float(np.min(times)) * 1e3,
            "times_the_flat_build": float(np.median(times)) / flat,
        }
        for name, times in seconds.items()
    }
    print(f"{arguments.sessions} sessions, {len(items)} clicks, {torch.get_num_threads()} threads; median, best")
    for name, row in figures.items():
        print(f"  {name:28} {row['median_ms']:9.2f} ms {row['best_ms']:9.2f} ms   {row['times_the_flat_build']:7.1f} x")
    if arguments.out:
        result = {
            "benchmark": "session_graphs",
            "protocol": "even lengths, a third of the clicks repeat the item before the last; compared, then timed in turns",
            "command": shlex.join(["python", *sys.argv]),
            "commit": commit(),
            "machine": machine(),
            "seed": arguments.seed,
            "sessions": arguments.sessions,
            "clicks": len(items),
            "repeats": arguments.repeats,
            "figures": figures,
        }
        arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
