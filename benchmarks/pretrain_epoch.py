"""Seconds an epoch of pre-training, beside a plain padded implementation on the same machine in the same run.

    python benchmarks/pretrain_epoch.py --run runs/beauty --out benchmarks/results/pretrain-epoch.json

Without --run it draws sessions of the shape of amazon-beauty (12,101 items, 131,413 prefixes). The padded form is what one
writes without this project's kernels: sessions padded to the longest of the batch, a Python loop that builds adjacency
matrices, dense batched products, the whole B x V logit matrix. Its epoch is measured on some steps and scaled up, and the
result says so; ours is a whole epoch.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from llmgr_core.encoders import EncoderSettings
from llmgr_core.evaluation.protocol import commit, machine
from llmgr_core.progress import Reporter
from llmgr_core.sessions import Examples, Sessions
from llmgr_core.settings.pretrain import PretrainSettings
from trainer.pretrain import Pretraining

TARGET_SECONDS = 15.0
BEAUTY_ITEMS, BEAUTY_SESSIONS = 12_101, 22_363

SEED = 1


class PaddedGCSAN(nn.Module):
    """GC-SAN with one graph layer and one attention block over padded batches and dense adjacency matrices."""

    def __init__(self, num_items: int, d: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_items + 1, d, padding_idx=num_items)
        self.edge_in, self.edge_out = nn.Linear(d, d), nn.Linear(d, d)
        self.gate = nn.GRUCell(2 * d, d)
        self.block = nn.TransformerEncoderLayer(d, 1, 4 * d, dropout=0.0, batch_first=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, nodes, arriving, leaving, clicks, lengths):
        x = self.dropout(self.embedding(nodes))
        batch, size, d = x.shape
        messages = torch.cat([arriving @ self.edge_in(x), leaving @ self.edge_out(x)], dim=2)
        x = self.gate(messages.view(batch * size, 2 * d), x.view(batch * size, d)).view(batch, size, d)
        rows = self.dropout(x.gather(1, clicks[:, :, None].expand(-1, -1, d)))
        padded = torch.arange(clicks.shape[1]) >= lengths[:, None]
        attended = self.block(rows, src_key_padding_mask=padded)
        last = (lengths - 1)[:, None, None].expand(-1, 1, d)
        return 0.6 * attended.gather(1, last).squeeze(1) + 0.4 * rows.gather(1, last).squeeze(1)


def padded_batches(examples: Examples, batch_size: int, max_clicks: int, num_items: int) -> Iterator[tuple]:
    order = np.random.default_rng(0).permutation(len(examples))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        prefixes = [examples.prefix(place)[-max_clicks:] for place in chosen]
        lengths = torch.tensor([len(prefix) for prefix in prefixes])
        size = int(lengths.max())
        nodes = torch.full((len(chosen), size), num_items)
        clicks = torch.zeros(len(chosen), size, dtype=torch.int64)
        arriving, leaving = torch.zeros(len(chosen), size, size), torch.zeros(len(chosen), size, size)
        for row, prefix in enumerate(prefixes):
            unique, where = np.unique(prefix, return_inverse=True)
            nodes[row, : len(unique)] = torch.from_numpy(unique.astype(np.int64))
            clicks[row, : len(prefix)] = torch.from_numpy(where)
            edges = np.zeros((size, size), dtype=np.float32)
            edges[where[:-1], where[1:]] = 1.0
            arriving[row] = torch.from_numpy(edges.T / np.maximum(edges.sum(0), 1)[:, None])
            leaving[row] = torch.from_numpy(edges / np.maximum(edges.sum(1), 1)[:, None])
        yield nodes, arriving, leaving, clicks, lengths, torch.from_numpy(examples.targets[chosen].astype(np.int64))


def padded_step_seconds(examples: Examples, num_items: int, encoder: EncoderSettings, batch_size: int, steps: int) -> float:
    torch.manual_seed(0)
    model = PaddedGCSAN(num_items, encoder.dimension, encoder.dropout)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    batches = padded_batches(examples, batch_size, encoder.max_clicks, num_items)
    started = 0.0
    for number in range(steps + 3):
        if number == 3:
            started = time.perf_counter()
        *inputs, targets = next(batches)
        session = nn.functional.normalize(model(*inputs), dim=1)
        table = nn.functional.normalize(model.embedding.weight[:-1], dim=1)
        loss = nn.functional.cross_entropy(encoder.scale * (session @ table.T), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (time.perf_counter() - started) / steps


def drawn_sessions() -> Sessions:
    """Chains without repeats: lengths around a mean of 6.9, items by a power law, like amazon-beauty's training sessions."""
    generator = np.random.default_rng(0)
    lengths = np.clip(generator.geometric(1 / 4.9, size=BEAUTY_SESSIONS) + 2, 3, 200)
    popularity = 1.0 / (np.arange(BEAUTY_ITEMS) + 20.0) ** 0.7
    items = generator.choice(BEAUTY_ITEMS, size=lengths.sum(), p=popularity / popularity.sum())
    return Sessions(items.astype(np.int32), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--run", type=Path, help="run directory with a prepared dataset")
    parser.add_argument("--encoder", choices=["gcsan", "srgnn"], default="gcsan")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--padded-steps", type=int, default=30)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)

    if arguments.run:
        from llmgr_core.artefacts import open_artefact
        from llmgr_core.data import Dataset

        dataset = Dataset.open(open_artefact(arguments.run / "dataset", "dataset"))
        train, num_items, name = dataset.train, dataset.num_items, dataset.protocol
    else:
        train, num_items, name = drawn_sessions(), BEAUTY_ITEMS, "drawn, of the shape of amazon-beauty"
    encoder = EncoderSettings(name=arguments.encoder)
    settings = PretrainSettings(epochs=arguments.epochs, batch_size=arguments.batch_size)
    examples = Examples.every_prefix(train)
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        outcome = Pretraining(
            train,
            examples.select(slice(0, 0)),
            num_items,
            encoder=encoder,
            settings=settings,
            seed=SEED,
            directory=place,
            checkpoints=place,
            reporter=Reporter(),
        ).run()
    steps = -(-len(examples) // arguments.batch_size)
    padded = padded_step_seconds(examples, num_items, encoder, arguments.batch_size, arguments.padded_steps) * steps
    seconds = min(outcome.epoch_seconds)
    result = {
        "benchmark": "pretrain_epoch",
        "data": name,
        "items": num_items,
        "prefixes": len(examples),
        "encoder": encoder.model_dump(),
        "batch_size": arguments.batch_size,
        "epoch_seconds": outcome.epoch_seconds,
        "prefixes_per_second": len(examples) / seconds,
        "target_seconds": TARGET_SECONDS,
        "target_met": seconds <= TARGET_SECONDS,
        "padded_gcsan_epoch_seconds": padded,
        "padded_measured_on_steps": arguments.padded_steps,
        "speedup_over_padded": padded / seconds,
        "protocol": "seconds of each whole epoch; the padded form is timed on some steps and scaled to an epoch",
        "seed": SEED,
        "commit": commit(),
        "machine": machine(),
        "command": ["python", *sys.argv],
    }
    text = json.dumps(result, indent=2, ensure_ascii=False)
    print(text)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
