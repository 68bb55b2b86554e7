"""How long EmbedItem takes, beside a call that does nothing, a bare durable write and the bare language model.

    python benchmarks/embedding_service.py                         MiniLM as it came, generated product texts
    python benchmarks/embedding_service.py --out results.json

Three kinds of EmbedItem: an item sent again unchanged; a known text under a new id (a durable write, no language model); a new
text. The first two take turns with the no-op call in blocks, so that all meet the same machine. The server is a process of its
own with one thread for the model; one client, one call at a time. Then a stream of new texts against the same model without a
server, in the same process. Each figure is the median over the repeats of that repeat's own quantile.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import numpy as np

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
TARGET_UNCHANGED_MS = 1.0
TARGET_KNOWN_TEXT_MS = 15.0
TARGET_STREAM_SHARE = 0.9
NO_OP_SERVER = Path(__file__).with_name("no_op_server.py")
NO_OP_METHOD = "/benchmark.NoOp/Call"
EMBED_ITEM = "/llmgr.v1.EmbeddingService/EmbedItem"
# One durable write of LMDB: data pages, then the meta page.
WRITE_BYTES = 16 << 10
BRANDS = ("Acme", "Lumière", "Northwind", "Kestrel", "Orchid & Co", "Halden")
KINDS = ("hand cream", "nail lacquer", "shampoo", "beard trimmer", "face tonic", "lip balm", "hair dryer", "sun lotion")
QUALITIES = ("rose", "lavender", "matte", "organic", "waterproof", "travel size", "sensitive skin", "long lasting", "unscented")


def product_texts(count: int, first: int = 0) -> Iterator[tuple[str, str]]:
    """Title and brand of made-up products, all different, 8 to 16 words."""
    for number in range(first, first + count):
        random = np.random.default_rng(number)
        qualities = " ".join(random.choice(QUALITIES, int(random.integers(3, 7)), replace=False))
        brand = str(random.choice(BRANDS))
        yield f"{brand} {random.choice(KINDS)}, {qualities}, {random.integers(10, 500)} ml, no. {number}", brand


def serve(engine: str, store: Path, sample: int) -> None:
    """The server's process: measure the bare model and the bare disk, then serve until standard input ends."""
    import threading

    from llmgr_core.data.item import Item
    from llmgr_core.engine import SemanticEngine
    from llmgr_core.settings import load_settings
    from llmgr_core.store.item_encoder import ItemEncoder
    from llmgr_core.text import TextCleaner
    from services.embedding.background import serve_in_background
    from services.server.observation import configure_logs

    configure_logs(level=30)
    settings = load_settings(None, [f"engine.model={engine}", "serve.embedding_port=0", "embed.metrics_port=-1"])
    model = SemanticEngine.load(settings.engine)
    cleaner = TextCleaner(settings.text).fit([])
    encoder = ItemEncoder(
        cleaner,
        model,
        model.fingerprint(cleaner.digest),
        model.hidden_size,
        settings.engine.model,
        model.max_tokens,
        settings.engine.batch_tokens,
    )
    texts = [cleaner.clean(Item("x", title=title, brand=brand)) or "" for title, brand in product_texts(sample, 10_000_000)]
    model.embed_texts(texts[:32])
    single = milliseconds(lambda text: model.embed_texts([text]), texts[: min(50, sample)])
    started = time.perf_counter()
    for start in range(0, sample, 64):
        model.embed_texts(sorted(texts[start : start + 64], key=len))
    batched = sample / (time.perf_counter() - started)
    with serve_in_background(encoder, store, settings) as listening:
        facts = {
            "address": listening.address,
            "model_ms": summary([single]),
            "model_texts_per_s": round(batched, 1),
            "fsync_ms": summary([durable_writes(store, 100)]),
            "engine": settings.engine.model,
            "dimensions": model.hidden_size,
        }
        print(json.dumps(facts), flush=True)
        waiting = threading.Thread(target=sys.stdin.read)
        waiting.start()
        waiting.join()


def durable_writes(directory: Path, count: int) -> np.ndarray:
    """Time to append WRITE_BYTES to a file and have them on the disk, float64 [n] milliseconds."""
    path = directory / "fsync.probe"
    with path.open("wb", buffering=0) as file:

        def write(_: int) -> None:
            file.write(b"x" * WRITE_BYTES)
            os.fdatasync(file.fileno())

        times = milliseconds(write, list(range(count)))
    path.unlink()
    return times


def milliseconds(call: Callable[[Any], object], arguments: list[Any]) -> np.ndarray:
    """Time of each call, float64 [n]."""
    times = np.empty(len(arguments))
    for place, argument in enumerate(arguments):
        started = time.perf_counter_ns()
        call(argument)
        times[place] = time.perf_counter_ns() - started
    return times / 1e6


def summary(repeats: list[np.ndarray]) -> dict[str, float]:
    """Median over the repeats of each repeat's quantiles."""
    quantiles = np.median([np.quantile(one, [0.5, 0.9, 0.99]) for one in repeats], axis=0)
    return {name: round(float(value), 4) for name, value in zip(("p50_ms", "p90_ms", "p99_ms"), quantiles, strict=True)}


def start(stack: ExitStack, command: list[str]) -> str:
    """Start a process that ends with its standard input; its first line of output."""
    environment = os.environ | ONE_THREAD
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdin is not None
    assert process.stdout is not None
    stack.callback(process.wait)
    stack.callback(process.stdin.close)
    line = process.stdout.readline()
    if not line:
        raise click.ClickException(f"{command[1]} did not start")
    return line


@click.command("embedding-service", help="Time of EmbedItem beside a no-op call, a bare durable write and the bare model.")
@click.option("--engine", default="minilm", show_default=True, help="Language model, as engine.model.")
@click.option("--requests", type=click.IntRange(10), default=400, show_default=True, help="Calls of each kind in one repeat.")
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
@click.option("--new-texts", type=click.IntRange(10), default=512, show_default=True, help="Texts of the stream.")
@click.option("--directory", type=click.Path(file_okay=False, path_type=Path), help="On the disk to measure.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures here, as JSON.")
def command(*, engine: str, requests: int, repeats: int, new_texts: int, directory: Path | None, out: Path | None) -> None:
    import grpc

    from llmgr_core.data.item import Item
    from llmgr_core.evaluation.protocol import commit, machine
    from services.client import EmbeddedItem, EmbeddingClient
    from services.contract import embedding_service_pb2 as messages

    def request(item_id: str, title: str, brand: str) -> bytes:
        return messages.EmbedItemRequest(item={"item_id": item_id, "title": title, "brand": brand}).SerializeToString()

    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=directory)))
        serving = [sys.executable, __file__, "--serve", engine, str(scratch / "store"), str(new_texts)]
        facts = json.loads(start(stack, serving))
        no_op_address = f"127.0.0.1:{start(stack, [sys.executable, str(NO_OP_SERVER)]).strip()}"
        embedding = stack.enter_context(grpc.insecure_channel(facts["address"]))
        no_op = stack.enter_context(grpc.insecure_channel(no_op_address))
        embed_call, no_op_call = embedding.unary_unary(EMBED_ITEM), no_op.unary_unary(NO_OP_METHOD)

        products = list(product_texts(50))
        known = [request(f"known-{number}", *product) for number, product in enumerate(products)]
        for payload in known:
            embed_call(payload)
        unchanged, known_texts, floors = [], [], []
        for repeat in range(repeats):
            again = [known[number % len(known)] for number in range(requests)]
            new_ids = [request(f"new-{repeat}-{n}", *products[n % len(products)]) for n in range(requests)]
            floors.append(milliseconds(no_op_call, again))
            unchanged.append(milliseconds(embed_call, again))
            known_texts.append(milliseconds(embed_call, new_ids))
        singles = [request(f"single-{n}", *product) for n, product in enumerate(product_texts(max(new_texts // 10, 10), 1000))]
        misses = [milliseconds(embed_call, singles)]
        items = [Item(f"stream-{n}", title, brand=brand) for n, (title, brand) in enumerate(product_texts(new_texts, 100_000))]
        with EmbeddingClient(facts["address"]) as client:
            started = time.perf_counter()
            stored = sum(isinstance(outcome, EmbeddedItem) for outcome in client.embed_many(items))
            stream_rate = stored / (time.perf_counter() - started)

    figures = {
        "no-op call": summary(floors),
        "unchanged item": summary(unchanged),
        "known text, new id": summary(known_texts),
        "durable write alone": facts["fsync_ms"],
        "new text": summary(misses),
        "model alone": facts["model_ms"],
    }
    targets = {"unchanged item": TARGET_UNCHANGED_MS, "known text, new id": TARGET_KNOWN_TEXT_MS}
    share = stream_rate / facts["model_texts_per_s"]
    result = {
        "benchmark": "embedding_service",
        "protocol": {
            "engine": facts["engine"],
            "dimensions": facts["dimensions"],
            "texts": "made-up products, 8 to 16 words",
            "requests": requests,
            "repeats": repeats,
            "new_texts": new_texts,
            "clients": 1,
            "threads": 1,
            "statistic": "median over the repeats of each repeat's quantile",
        },
        "figures": figures,
        "texts_per_s": {"stream": round(stream_rate, 1), "model alone": facts["model_texts_per_s"], "share": round(share, 3)},
        "targets": {**{f"{name} p50_ms": value for name, value in targets.items()}, "stream share": TARGET_STREAM_SHARE},
        "reached": {
            **{name: figures[name]["p50_ms"] <= value for name, value in targets.items()},
            "stream share": share >= TARGET_STREAM_SHARE,
        },
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "commit": commit(),
        "machine": machine(),
    }
    print(f"{facts['engine']}, medians of {repeats} repeats of {requests} calls")
    for name, figure in figures.items():
        line = "  ".join(f"{key.removesuffix('_ms')} {value:7.3f} ms" for key, value in figure.items())
        print(f"{name:<20} {line}" + (f"   target p50 {targets[name]} ms" if name in targets else ""))
    print(f"stream of new texts  {stream_rate:.1f} texts/s, model alone {facts['model_texts_per_s']} texts/s: {share:.0%}")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
    else:
        command()
