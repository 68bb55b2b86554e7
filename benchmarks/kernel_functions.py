"""The CPU paths of the kernel functions beside plain torch, each checked against its definition before it is timed.

python benchmarks/kernel_functions.py
python benchmarks/kernel_functions.py --threads 2 --out results.json
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from kernels import (
    GatedGraphWeights,
    SessionGraph,
    build_session_graph,
    catalogue_cross_entropy,
    gated_graph_layers,
    score_topk,
)
from kernels.gated_graph.reference import gated_graph_layers_reference
from llmgr_core.evaluation.protocol import commit, machine

Way = Callable[[], object]


def session_graphs(sessions: int) -> SessionGraph:
    """Graphs of sessions of 3 to 20 clicks."""
    random = np.random.default_rng(1)
    offsets = np.concatenate([[0], np.cumsum(random.integers(3, 21, sessions))])
    return build_session_graph(random.integers(0, 12_101, offsets[-1]), offsets).graph


def gated_layer(sessions: int) -> tuple[dict[str, Way], float]:
    """Forward and backward of one layer at d = 64."""
    graph = session_graphs(sessions)
    _ = graph.target_offsets
    weights = GatedGraphWeights(*[w.requires_grad_() for w in GatedGraphWeights.initial(64)])
    nodes = torch.randn(graph.num_nodes, 64, requires_grad=True)

    def run(function: Callable[..., torch.Tensor]) -> Way:
        return lambda: torch.autograd.grad(function(nodes, graph, weights, 1).sum(), [nodes, *weights])

    wide = [tensor.detach().double() for tensor in weights]
    exact = gated_graph_layers_reference(nodes.detach().double(), graph, GatedGraphWeights(*wide), 1)
    error = float((gated_graph_layers(nodes, graph, weights, 1) - exact).detach().abs().max() / exact.abs().max())
    return {"ours": run(gated_graph_layers), "plain": run(gated_graph_layers_reference)}, error


def cross_entropy(sessions: int, items: int) -> tuple[dict[str, Way], float]:
    """Loss and both gradients, cosine logits, d = 64."""
    z, table = torch.randn(sessions, 64, requires_grad=True), torch.randn(items, 64, requires_grad=True)
    target = torch.randint(0, items, (sessions,))

    def plain(vectors: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        logits = 16.0 * functional.normalize(vectors, dim=1) @ functional.normalize(rows, dim=1).T
        return functional.cross_entropy(logits, target)

    def ours(vectors: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return catalogue_cross_entropy(vectors, rows, target, 16.0, cosine=True)

    exact = torch.autograd.grad(plain(z.double(), table.double()), [z, table])
    found = torch.autograd.grad(ours(z, table), [z, table])
    error = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, exact, strict=True))

    def run(function: Callable[..., torch.Tensor]) -> Way:
        return lambda: torch.autograd.grad(function(z, table), [z, table])

    return {"ours": run(ours), "plain": run(plain)}, error


def scoring(sessions: int, items: int) -> tuple[dict[str, Way], float]:
    """Top 20 with log-sum-exp, beside the plain way and a plain read of the table."""
    z, table = torch.randn(sessions, 64), torch.randn(items, 64)
    ids, scores, _ = score_topk(z, table, 20)
    exact = torch.stack([(table[row].double() * z[b].double()).sum(1) for b, row in enumerate(ids)])
    error = float((scores - exact).abs().max() / exact.abs().max())
    best = torch.topk(z @ table.T, 20).values
    error = max(error, float((scores - best).abs().max() / best.abs().max()))

    def plain() -> object:
        logits = z @ table.T
        return torch.topk(logits, 20), torch.logsumexp(logits, dim=1)

    return {"ours": lambda: score_topk(z, table, 20), "plain": plain, "read of the table": table.sum}, error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, help="write the figures here, as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    cases: dict[str, tuple[Callable[..., tuple[dict[str, Way], float]], tuple[int, ...]]] = {
        "gated layer, forward and backward, 512 sessions": (gated_layer, (512,)),
        "gated layer, forward and backward, 4,096 sessions": (gated_layer, (4096,)),
        "cross-entropy with gradients, 512 x 12,101": (cross_entropy, (512, 12_101)),
        "cross-entropy with gradients, 64 x 200,000": (cross_entropy, (64, 200_000)),
        "score and top 20, 1 x 12,101": (scoring, (1, 12_101)),
        "score and top 20, 512 x 12,101": (scoring, (512, 12_101)),
        "score and top 20, 1 x 1,000,000": (scoring, (1, 1_000_000)),
    }
    figures: dict[str, dict[str, float]] = {}
    print(f"d = 64, float32, {arguments.threads} threads; median (best) ms")
    for name, (build, sizes) in cases.items():
        ways, error = build(*sizes)
        if not error < 1e-5:
            print(f"  {name:52} WRONG by {error:.1e}: no time is reported")
            continue
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for repeat in range(arguments.repeats + 1):
            for way, call in ways.items():
                started = time.perf_counter()
                call()
                if repeat:
                    seconds[way].append(time.perf_counter() - started)
        figures[name] = {way: float(np.median(times)) * 1e3 for way, times in seconds.items()}
        figures[name] |= {f"{way}, best": float(np.min(times)) * 1e3 for way, times in seconds.items()} | {"error": error}
        print(
            f"  {name:52} "
            + "   ".join(f"{way} {figures[name][way]:.3f} ({figures[name][f'{way}, best']:.3f})" for way in ways)
        )
    if arguments.out:
        result = {
            "benchmark": "kernel_functions",
            "protocol": "d = 64, float32; each way checked against float64, then timed in turns; median milliseconds",
            "command": shlex.join(["python", *sys.argv]),
            "commit": commit(),
            "machine": machine(),
            "threads": arguments.threads,
            "repeats": arguments.repeats,
            "figures": figures,
        }
        arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
