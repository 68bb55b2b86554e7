"""How long after EmbedItem has answered OK an item is in the rankings.

    llmgr bench freshness                                a synthetic bundle over MiniLM (`llmgr model minilm` first)
    llmgr bench freshness --run runs/beauty              the bundle of a run, over an empty store of its own
    llmgr bench freshness --load 200                     while 200 sessions a second are ranked, too
    llmgr bench freshness --direct --load 200            no language model: from the store's commit
    llmgr bench freshness --out results.json

Both servers run as processes on one store. After each OK, RankSession is asked for the new item alone, again and again, until
it is in the answer: what passes until then is the figure, the calls' own time included. Nothing is waited for by sequence; how
long a call with `min_sequence` takes right after another OK is measured beside it. Load is Poisson, by a process of its own.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np

SEED = 2  # of the sessions ranked meanwhile
TARGET_MS = 100.0
TARGET_QUANTILE = 0.99
SYNTHETIC_ITEMS = 12_101
GIVE_UP_SECONDS = 5.0
DIRECT_DIMENSION = 384
LOAD_SLICE_SECONDS = 5.0
RANK_SESSION = "/llmgr.v1.RankingService/RankSession"

# Item number to its id and the change of the store it came with.
Insert = Callable[[int], tuple[str, int]]


def synthetic_bundle(path: Path, model: str) -> None:
    """A bundle of random weights that stands on a real, untuned language model."""
    from llmgr_core.bundle import EngineReference
    from llmgr_core.engine import SemanticEngine
    from llmgr_core.engine.prompts import PROMPT_VERSION
    from llmgr_core.settings.engine import EngineSettings
    from llmgr_core.text import TextCleaner
    from services.ranking.synthetic_bundle import SyntheticBundle

    settings = EngineSettings(model=model)
    engine, cleaner = SemanticEngine.load(settings), TextCleaner()
    reference = EngineReference(
        settings=settings.model_dump(),
        base_hash=engine.base_hash,
        adapter_hash="",
        fingerprint=engine.fingerprint(cleaner.digest),
        prompt_version=PROMPT_VERSION,
        hidden_size=engine.hidden_size,
    )
    bundle = SyntheticBundle(SYNTHETIC_ITEMS, engine.hidden_size, reference.fingerprint)
    bundle.write(path, cleaner_state=cleaner.state(), engine=reference)


def quantiles(values: list[float]) -> dict[str, float]:
    numbers = np.quantile(values, [0.5, 0.9, TARGET_QUANTILE, 1.0])
    return {name: round(float(value), 3) for name, value in zip(("p50_ms", "p90_ms", "p99_ms", "max_ms"), numbers, strict=True)}


def by_embedding_server(stack: ExitStack, scratch: Path, places: tuple[str, ...]) -> Insert:
    """Inserts as a shop makes them."""
    from llmgr_core.data.item import Item
    from services.client import EmbeddingClient
    from services.client.local_server import ServerProcess

    server = stack.enter_context(ServerProcess("embedding", scratch, *places))
    client = stack.enter_context(EmbeddingClient(server.address))
    return lambda number: (
        f"benchmark-{number}",
        client.embed(Item(f"benchmark-{number}", title=f"Lamp number {number}")).sequence,
    )


def into_the_store(stack: ExitStack, store: Path, fingerprint: str, dimension: int) -> Insert:
    """Inserts of random vectors by the store's own writer, in this process."""
    from llmgr_core.store import EmbeddedText, Encoder, StoreWriter

    writer = stack.enter_context(StoreWriter.open(store))
    writer.activate(Encoder(fingerprint, dimension, "random numbers"))
    random = np.random.default_rng(5)

    def insert(number: int) -> tuple[str, int]:
        text = EmbeddedText.of(fingerprint, f"text {number}", random.normal(size=dimension))
        return f"benchmark-{number}", writer.put(f"benchmark-{number}", b"{}", text).sequence

    return insert


@contextmanager
def load(address: str, requests: list[bytes], rate: float) -> Iterator[list[Any]]:
    """Rankings at this rate for as long as the block lasts; gives the outcomes of slices of LOAD_SLICE_SECONDS."""
    from services.load.open_loop import run_apart
    from services.load.plan import LoadPlan, Method, poisson_times

    ended, outcomes = threading.Event(), []
    random = np.random.default_rng(6)

    def keep_up() -> None:
        while not ended.is_set():
            times = poisson_times(rate, LOAD_SLICE_SECONDS, random)
            outcomes.append(run_apart(LoadPlan.of_one(Method.at("RankSession", address, RANK_SESSION), times, requests)))

    thread = threading.Thread(target=keep_up)
    if rate:
        thread.start()
        # The client's process needs a moment to start.
        time.sleep(1.0)
    try:
        yield outcomes
    finally:
        ended.set()
        if rate:
            thread.join()


def measured(ranking: Any, insert: Insert, first: int, inserts: int) -> tuple[list[float], ...]:
    """Milliseconds until each insert was ranked, of calls with min_sequence, and of the same call with nothing to wait for.

    Inserts 2 * inserts items, from number ``first`` on.
    """
    random = np.random.default_rng(first)

    def pause() -> None:
        # Of random length, so that inserts do not fall into step with the ranker's looks at the store.
        time.sleep(random.uniform(0.0, 0.03))

    def until_ranked(number: int) -> float:
        pause()
        item_id, _ = insert(number)
        answered = time.perf_counter()
        while time.perf_counter() - answered < GIVE_UP_SECONDS:
            if ranking.rank([], candidate_ids=[item_id]).items:
                return (time.perf_counter() - answered) * 1e3
        raise click.ClickException(f"{item_id} was not ranked within {GIVE_UP_SECONDS} s")

    def with_sequence(number: int) -> float:
        pause()
        item_id, sequence = insert(number)
        answered = time.perf_counter()
        found = ranking.rank([], candidate_ids=[item_id], min_sequence=sequence).items
        assert found, f"{item_id} is missing from a ranking that knows of change {sequence}"
        return (time.perf_counter() - answered) * 1e3

    def of_a_known_item(number: int) -> float:
        pause()
        asked = time.perf_counter()
        ranking.rank([], candidate_ids=[f"benchmark-{number}"])
        return (time.perf_counter() - asked) * 1e3

    polled = [until_ranked(first + place) for place in range(inserts)]
    awaited = [with_sequence(first + inserts + place) for place in range(inserts)]
    return polled, awaited, [of_a_known_item(first + place) for place in range(inserts)]


@click.command("freshness", help=(__doc__ or "").replace("\n\n    ", "\n\n\b\n    "))
@click.option("--run", "run_directory", type=click.Path(file_okay=False, path_type=Path), help="Run with a bundle/.")
@click.option("--model", default="minilm", show_default=True, help="Language model under the synthetic bundle.")
@click.option("--direct", is_flag=True, help="Write into the store, without an embedding server.")
@click.option("--inserts", type=click.IntRange(10), default=300, show_default=True, help="Items inserted in one repeat.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
@click.option("--load", "rate", type=click.FloatRange(0.0), default=0.0, show_default=True, help="Sessions a second meanwhile.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write JSON here, and a plot beside it.")
def command(
    run_directory: Path | None, model: str, direct: bool, inserts: int, repeats: int, rate: float, out: Path | None
) -> None:
    from benchmarks.load_report import finish
    from llmgr_core.bundle import Bundle
    from services.client import RankingClient
    from services.client.local_server import ServerProcess
    from services.load.outcomes import curve_of
    from services.load.session_source import SessionSource
    from services.ranking.synthetic_bundle import SyntheticBundle

    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        path = scratch / "bundle" if run_directory is None else run_directory / "bundle"
        if run_directory is None and direct:
            SyntheticBundle(SYNTHETIC_ITEMS, DIRECT_DIMENSION, "synthetic").write(path)
        elif run_directory is None:
            synthetic_bundle(path, model)
        # The run's own store stays as it is: the inserts of a benchmark do not belong there.
        store = scratch / "store"
        places = ("--bundle", str(path), "--store", str(store))
        bundle = Bundle.open(path, verify=False)
        if direct:
            insert = into_the_store(stack, store, bundle.fingerprint or "", bundle.ranker.description.text_dimension)
        else:
            insert = by_embedding_server(stack, scratch, places)
        serving = stack.enter_context(ServerProcess("ranking", scratch, *places))
        ranking = stack.enter_context(RankingClient(serving.address, timeout=10.0))
        items = ranking.info().items
        requests = SessionSource.from_bundle(bundle.parts).requests(2000, np.random.default_rng(SEED))

        measured(ranking, insert, 0, 1)
        polled, awaited, known = [], [], []
        with load(serving.address, requests, rate) as outcomes:
            for number in range(repeats):
                one, other, floor = measured(ranking, insert, 2 + 2 * inserts * number, inserts)
                polled.append(one)
                awaited.append(other)
                known.append(floor)

    everything = [delay for repeat in polled for delay in repeat]
    within = float(np.mean([delay <= TARGET_MS for delay in everything]))
    delays = {
        "rankable": everything,
        "call with min_sequence": [delay for repeat in awaited for delay in repeat],
        "call for a known item": [delay for repeat in known for delay in repeat],
    }
    figures = {name: quantiles(one) for name, one in delays.items()}
    result = {
        "benchmark": "freshness",
        "protocol": {
            "bundle": "of a run" if run_directory else f"random weights, {SYNTHETIC_ITEMS} items",
            "items": items,
            "store": "empty at first",
            "inserts": inserts,
            "repeats": repeats,
            "from": "the commit of the store" if direct else "the OK of EmbedItem",
            "to": "the first RankSession reply with the item, calls included",
            "load_per_s": rate,
            "seed": SEED,
        },
        "figures": {
            **figures,
            "rankable, by repeat": [quantiles(repeat) for repeat in polled],
            "share within target": within,
            "load": [one.summary() for one in outcomes],
        },
        "targets": {"ms": TARGET_MS, "share": TARGET_QUANTILE},
        "reached": within >= TARGET_QUANTILE,
        "curves": {name: curve_of(np.array(one)) for name, one in delays.items()},
    }
    print(f"{len(everything)} inserts beside {items} items and {rate:g} sessions/s")
    for name in figures:
        print(
            f"{name:<23}"
            + "  ".join(f"{key.removesuffix('_ms')} {value:.1f} ms" for key, value in result["figures"][name].items())
        )
    print(f"within {TARGET_MS:.0f} ms: {within:.2%}   target {TARGET_QUANTILE:.0%}")
    finish(result, out)


if __name__ == "__main__":
    command()
