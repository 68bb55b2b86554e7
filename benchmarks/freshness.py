"""How long after EmbedItem has answered OK an item is in the rankings.

    python benchmarks/freshness.py                       a synthetic bundle over MiniLM (`llmgr model minilm` first)
    python benchmarks/freshness.py --run runs/beauty     the bundle of a run, over an empty store of its own
    python benchmarks/freshness.py --out results.json

Both servers run as processes on one store. After each OK, RankSession is asked for the new item alone, again and again, until
it is in the answer: what passes until then is the figure, the calls' own time included. Nothing is waited for by sequence; how
long a call with `min_sequence` takes right after another OK is measured beside it.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import click
import numpy as np

TARGET_MS = 100.0
TARGET_QUANTILE = 0.99
SYNTHETIC_ITEMS = 12_101
GIVE_UP_SECONDS = 5.0


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


@click.command("freshness", help="Time from EmbedItem's OK until the item is ranked.")
@click.option("--run", "run_directory", type=click.Path(file_okay=False, path_type=Path), help="Run with a bundle/.")
@click.option("--model", default="minilm", show_default=True, help="Language model under the synthetic bundle.")
@click.option("--inserts", type=click.IntRange(10), default=300, show_default=True, help="Items inserted in one repeat.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures here, as JSON.")
def command(run_directory: Path | None, model: str, inserts: int, repeats: int, out: Path | None) -> None:
    from llmgr_core.data.item import Item
    from llmgr_core.evaluation.protocol import commit, machine
    from services.client import EmbeddingClient, RankingClient
    from services.client.local_server import ServerProcess

    random = np.random.default_rng(3)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bundle = scratch / "bundle" if run_directory is None else run_directory / "bundle"
        if run_directory is None:
            synthetic_bundle(bundle, model)
        # The run's own store stays as it is: the inserts of a benchmark do not belong there.
        store = scratch / "store"
        places = ("--bundle", str(bundle), "--store", str(store))
        inserting = stack.enter_context(ServerProcess("embedding", scratch, *places))
        serving = stack.enter_context(ServerProcess("ranking", scratch, *places))
        embedding = stack.enter_context(EmbeddingClient(inserting.address))
        ranking = stack.enter_context(RankingClient(serving.address, timeout=10.0))
        items = ranking.info().items

        def insert(number: int) -> tuple[str, int]:
            # A pause of random length, so that inserts do not fall into step with the ranker's looks at the store.
            time.sleep(random.uniform(0.0, 0.03))
            item_id = f"benchmark-{number}"
            return item_id, embedding.embed(Item(item_id, title=f"Lamp number {number}")).sequence

        def until_ranked(number: int) -> float:
            item_id, _ = insert(number)
            answered = time.perf_counter()
            while time.perf_counter() - answered < GIVE_UP_SECONDS:
                if ranking.rank([], candidate_ids=[item_id]).items:
                    return (time.perf_counter() - answered) * 1e3
            raise click.ClickException(f"{item_id} was not ranked within {GIVE_UP_SECONDS} s")

        def with_sequence(number: int) -> float:
            item_id, sequence = insert(number)
            answered = time.perf_counter()
            found = ranking.rank([], candidate_ids=[item_id], min_sequence=sequence).items
            assert found, f"{item_id} is missing from a ranking that knows of change {sequence}"
            return (time.perf_counter() - answered) * 1e3

        until_ranked(0)
        polled, awaited, number = [], [], 1
        for _ in range(repeats):
            polled.append([until_ranked(number + place) for place in range(inserts)])
            awaited.append([with_sequence(number + inserts + place) for place in range(inserts)])
            number += 2 * inserts

    everything = [delay for repeat in polled for delay in repeat]
    within = float(np.mean([delay <= TARGET_MS for delay in everything]))
    figures = {
        "rankable": quantiles(everything),
        "call with min_sequence": quantiles([delay for repeat in awaited for delay in repeat]),
    }
    result = {
        "benchmark": "freshness",
        "protocol": {
            "bundle": "of a run" if run_directory else f"random weights, {SYNTHETIC_ITEMS} items, over {model}",
            "items": items,
            "store": "empty at first",
            "inserts": inserts,
            "repeats": repeats,
            "measured": "from the OK of EmbedItem to the first RankSession reply with the item, calls included",
        },
        "figures": {
            **figures,
            "rankable, by repeat": [quantiles(repeat) for repeat in polled],
            "share within target": within,
        },
        "targets": {"ms": TARGET_MS, "share": TARGET_QUANTILE},
        "reached": within >= TARGET_QUANTILE,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "commit": commit(),
        "machine": machine(),
    }
    print(f"{len(everything)} inserts beside {items} items")
    for name in ("rankable", "call with min_sequence"):
        print(
            f"{name:<23}"
            + "  ".join(f"{key.removesuffix('_ms')} {value:.1f} ms" for key, value in result["figures"][name].items())
        )
    print(f"within {TARGET_MS:.0f} ms: {within:.2%}   target {TARGET_QUANTILE:.0%}")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    command()
