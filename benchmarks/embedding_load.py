"""EmbedItem under load, alone and beside rankings, and what no server can be faster than.

    llmgr bench embedding                         MiniLM as it came under a random bundle (`llmgr model minilm` first)
    llmgr bench embedding --run runs/beauty       the bundle of a run, over a store of its own
    llmgr bench embedding --out result.json       JSON, and plots beside it

Floors, measured in the same minutes: a call that does nothing under the same load, a durable write alone, and the language
model alone. Loads are Poisson arrivals timed from when each call was due: items sent again unchanged, known texts under new ids
(a durable write, no language model), new texts, and new texts beside rankings.
"""

# Threads are counted when NumPy is loaded, so that they have to be set before.
# ruff: noqa: E402

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

import dataclasses
import itertools
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.embedding_service import durable_writes, milliseconds, product_texts
from benchmarks.no_op_server import METHOD as NO_OP_METHOD
from benchmarks.ranking_service import start_no_op_server

EMBED_ITEM = "/llmgr.v1.EmbeddingService/EmbedItem"
RANK_SESSION = "/llmgr.v1.RankingService/RankSession"
TARGETS: dict[str, Any] = {"latency": {"p50_ms": 1.0}, "stream share": 0.9}
TIMEOUT = 10.0
KNOWN = 200
MODEL_TEXTS = 64


def embed_request(item_id: str, title: str, brand: str) -> bytes:
    from services.contract import embedding_service_pb2 as messages

    return messages.EmbedItemRequest(item={"item_id": item_id, "title": title, "brand": brand}).SerializeToString()


def model_alone(bundle: Path) -> dict[str, Any]:
    """The bundle's language model in this process: one text at a time, and texts a second in batches."""
    from llmgr_core.data.item import Item
    from llmgr_core.settings.engine import EngineSettings
    from services.embedding.loading import encoder_from_bundle
    from services.load.outcomes import quantiles

    encoder = encoder_from_bundle(bundle, EngineSettings())
    products = product_texts(MODEL_TEXTS, 20_000_000)
    texts = [encoder.cleaner.clean(Item("x", title=title, brand=brand)) or "" for title, brand in products]
    encoder.encode(texts[:16])
    single = milliseconds(lambda text: encoder.encode([text]), texts)
    together = milliseconds(encoder.encode, [sorted(texts, key=len)])
    return {"latency": quantiles(single), "texts_per_s": round(float(MODEL_TEXTS / together[0] * 1e3), 1)}


@dataclasses.dataclass
class Load:
    """One kind of load.

    Attributes:
        name: for people.
        method: whose latencies it is about.
        rate: calls a second.
        requests: serialised.
        beside: further (method, rate, requests) at the same time.
    """

    name: str
    method: Any
    rate: float
    requests: list[bytes]
    beside: tuple[tuple[Any, float, list[bytes]], ...] = ()

    def plan(self, seconds: float, random: np.random.Generator) -> Any:
        from services.load.plan import LoadPlan, poisson_times

        parts = [(self.method, self.rate, self.requests), *self.beside]
        return LoadPlan.merged(
            [
                LoadPlan.of_one(method, poisson_times(rate, seconds, random), requests, timeout=TIMEOUT)
                for method, rate, requests in parts
            ]
        )


def measured(load: Load, floor: Load, pids: list[int], floor_pid: int, seconds: float, random: np.random.Generator) -> Any:
    """The call that does nothing at the same rate, then the load."""
    from services.load.open_loop import run_apart
    from services.load.process_usage import cpu_seconds

    before = cpu_seconds([floor_pid])
    nothing = run_apart(floor.plan(min(seconds, 15.0), random))
    floor_cpu = cpu_seconds([floor_pid]) - before
    before = cpu_seconds(pids)
    outcomes = run_apart(load.plan(seconds, random))
    cpu = cpu_seconds(pids) - before
    own = outcomes.of_method(load.method.name)
    return {
        "name": load.name,
        "rate": load.rate,
        "seconds": seconds,
        "latency": own.summary(),
        "floor": nothing.summary(),
        "curve": own.curve(),
        "floor_curve": nothing.curve(),
        "server_cpu_us": round(cpu / max(len(own), 1) * 1e6, 1),
        "floor_cpu_us": round(floor_cpu / max(len(nothing), 1) * 1e6, 1),
        "beside": {method.name: outcomes.of_method(method.name).summary() for method, _, _ in load.beside},
    }


@click.command("embedding", help=(__doc__ or "").replace("\n\n    ", "\n\n\b\n    "))
@click.option("--run", "run_directory", type=click.Path(file_okay=False, path_type=Path), help="Run with a bundle/.")
@click.option("--model", default="minilm", show_default=True, help="Language model under the random bundle.")
@click.option("--rates", default="50,200", show_default=True, help="Unchanged items a second, one load each.")
@click.option("--write-rate", type=float, default=40.0, show_default=True, help="Known texts under new ids a second.")
@click.option("--new-share", type=float, default=0.4, show_default=True, help="New texts, as a share of the bare model's.")
@click.option("--rank-rate", type=float, default=200.0, show_default=True, help="Rankings a second beside new texts.")
@click.option("--stream-texts", type=click.IntRange(10), default=512, show_default=True, help="New texts in one stream.")
@click.option("--seconds", type=click.FloatRange(1.0), default=30.0, show_default=True, help="Length of each load.")
@click.option("--seed", default=2, show_default=True, help="Of arrivals and sessions.")
@click.option("--directory", type=click.Path(file_okay=False, path_type=Path), help="On the disk to measure.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write JSON here, and plots beside it.")
def command(
    run_directory: Path | None,
    model: str,
    rates: str,
    write_rate: float,
    new_share: float,
    rank_rate: float,
    stream_texts: int,
    seconds: float,
    seed: int,
    directory: Path | None,
    out: Path | None,
) -> None:
    from benchmarks.freshness import synthetic_bundle
    from benchmarks.load_report import finish, line, print_loads, print_targets
    from llmgr_core.bundle import Bundle
    from llmgr_core.data.item import Item
    from services.client import EmbeddedItem, EmbeddingClient
    from services.client.local_server import ServerProcess
    from services.load.outcomes import quantiles
    from services.load.plan import Method
    from services.load.session_source import SessionSource

    random = np.random.default_rng(seed)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=directory)))
        bundle = scratch / "bundle" if run_directory is None else run_directory / "bundle"
        if run_directory is None:
            synthetic_bundle(bundle, model)
        alone = model_alone(bundle)
        durable = quantiles(durable_writes(scratch, 200))
        places = ("--bundle", str(bundle), "--store", str(scratch / "store"))
        # Its writer makes the store that the ranking server wants to see.
        embedding = stack.enter_context(ServerProcess("embedding", scratch, *places))
        ranking = stack.enter_context(ServerProcess("ranking", scratch, *places))
        no_op = start_no_op_server(stack)
        client = stack.enter_context(EmbeddingClient(embedding.address, timeout=60.0))
        known = list(product_texts(KNOWN))
        unchanged = [embed_request(f"known-{number}", *product) for number, product in enumerate(known)]
        for number, (title, brand) in enumerate(known):
            client.embed(Item(f"known-{number}", title=title, brand=brand))
        numbers = itertools.count()
        writes = [
            embed_request(f"again-{next(numbers)}", *known[place % KNOWN]) for place in range(int(3 * write_rate * seconds))
        ]
        new_rate = max(new_share * alone["texts_per_s"], 1.0)
        count = int(3 * new_rate * seconds)
        new = [embed_request(f"new-{place}", *product) for place, product in enumerate(product_texts(count, 1_000_000))]
        source = SessionSource.from_bundle(Bundle.open(bundle, verify=False).parts)
        rankings = source.requests(2000, random)
        embed = Method.at("EmbedItem", embedding.address, EMBED_ITEM)
        rank = Method.at("RankSession", ranking.address, RANK_SESSION)
        nothing = Method.at("no-op", no_op.address, NO_OP_METHOD)
        loads = [Load("unchanged", embed, float(rate), unchanged) for rate in rates.split(",") if rate]
        if write_rate:
            loads.append(Load("known text, new id", embed, write_rate, writes))
        loads.append(Load("new text", embed, round(new_rate, 1), new[: count // 2]))
        if rank_rate:
            beside = ((rank, rank_rate, rankings),)
            loads.append(Load("new text beside rankings", embed, round(new_rate, 1), new[count // 2 :], beside))
        pids = embedding.facts["pids"]
        found = [
            measured(load, Load("", nothing, load.rate, load.requests), pids, no_op.pid, seconds, random) for load in loads
        ]
        products = product_texts(stream_texts, 50_000_000)
        items = [Item(f"stream-{place}", title, brand=brand) for place, (title, brand) in enumerate(products)]
        took = milliseconds(lambda _: sum(isinstance(one, EmbeddedItem) for one in client.embed_many(items)), [None])[0]
    stream = float(stream_texts / took * 1e3)
    result: dict[str, Any] = {
        "benchmark": "embedding_load",
        "method": "EmbedItem",
        "title": f"EmbedItem, {'bundle of a run' if run_directory else model}",
        "protocol": {
            "bundle": "of a run" if run_directory else f"random weights over {model}",
            "texts": "made-up products, 8 to 16 words",
            "sessions": source.origin,
            "arrivals": "Poisson, timed from when each call was due",
            "timeout_s": TIMEOUT,
            "seed": seed,
        },
        "targets": TARGETS,
        "floors": {"durable write alone": durable, "model alone": alone},
        "loads": found,
        "texts_per_s": {"stream": round(stream, 1), "model alone": alone["texts_per_s"]},
    }
    result["reached"] = {
        **{
            f"unchanged at {one['rate']:g}/s": (one["latency"]["p50_ms"] or 1e9) <= TARGETS["latency"]["p50_ms"]
            for one in found
            if one["name"] == "unchanged"
        },
        "no errors": all(set(one["latency"]["statuses"]) == {"OK"} for one in found),
        "stream share": stream >= TARGETS["stream share"] * alone["texts_per_s"],
    }
    click.echo(f"{result['title']}; milliseconds")
    line("durable write alone", durable)
    line("model alone, one text", alone["latency"], f"{alone['texts_per_s']} texts/s in batches")
    print_loads(result)
    for one in found:
        for name, figures in one["beside"].items():
            line(f"  {name} beside {one['name']}", figures, str(figures["statuses"]))
    click.echo(f"stream of new texts: {stream:.1f} texts/s, {stream / alone['texts_per_s']:.0%} of the model alone")
    print_targets(result)
    finish(result, out)


if __name__ == "__main__":
    command()
