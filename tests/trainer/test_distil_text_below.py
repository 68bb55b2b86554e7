"""distil.text_below from the command line to a served ranking: training, export, evaluation and server agree."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from tiny_models import write_tiny_encoder
from tiny_tuning import write_shop

from llmgr_core.artefacts import open_artefact
from llmgr_core.bundle import Bundle
from llmgr_core.command_line.main import llmgr
from llmgr_core.data import Dataset
from llmgr_core.errors import ArtefactError, SettingsError
from llmgr_core.ranker import RankerRuntime
from llmgr_core.store import EmbeddingStore
from trainer.distil.evaluated_ranker import ranker_scorer

BELOW = 7
OPTIONS = ["threads=1", "distil.epochs=1", "distil.encoder.dimension=8", "distil.encoder.name=srgnn", "distil.text_rank=8"]
OPTIONS += ["transitions.text_neighbours=4", "engine.max_tokens=24"]


def invoke(directory: Path, step: str, *more: str, **settings: object) -> Result:
    words = [step, "--run", str(directory), "--json", *more]
    for one in [*OPTIONS, f"engine.model={directory.parent / 'model'}", *(f"{key}={value}" for key, value in settings.items())]:
        words += ["--set", one]
    result = CliRunner().invoke(llmgr, words, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result


def run(directory: Path, step: str, *more: str, **settings: object) -> dict[str, object]:
    return json.loads(invoke(directory, step, *more, **settings).stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tail")
    write_tiny_encoder(root / "model")
    return write_shop(root / "run").run


@pytest.fixture(scope="module")
def dataset(shop: Path) -> Dataset:
    return Dataset.open(open_artefact(shop / "dataset", "dataset"))


def test_a_ranker_with_text_for_the_tail_needs_no_other_vectors_and_never_uses_them(shop: Path, dataset: Dataset) -> None:
    often = dataset.train_counts >= BELOW
    assert 10 < often.sum() < dataset.num_items - 10
    told = run(shop, "embed", "--untuned", "--below", str(BELOW))
    assert (told["left_out"], told["embedded"]) == (int(often.sum()), int((~often).sum()))
    run(shop, "distil", "--variant", "frozen-text", **{"distil.text_below": BELOW})
    run(shop, "export", "--variant", "frozen-text")
    bundle = Bundle.open(shop / "bundle")
    examples = dataset.test.select(np.arange(12))
    results = []
    for _ in range(2):
        with EmbeddingStore.open(shop / "store") as store:
            vectors, present = store.read_vectors(dataset.item_ids, bundle.fingerprint)
        results.append(present.sum())
        runtime = RankerRuntime(bundle.parts, vectors, present)
        ranker = open_artefact(shop / "ranker-frozen-text", "ranker")
        scores = ranker_scorer(ranker, dataset, shop / "store", "tail").scores(examples).numpy()
        results.append(scores)
        for number in range(len(examples)):
            ranking = runtime.rank(examples.prefix(number).astype(np.int64), dataset.num_items, include_seen=True)
            np.testing.assert_allclose(ranking.scores, scores[number][ranking.indices], atol=2e-4, rtol=1e-4)
        # The second time around, the store holds every vector.
        run(shop, "embed", "--untuned")
    assert results[0] < results[2] == dataset.num_items
    np.testing.assert_array_equal(results[1], results[3])


def test_a_threshold_that_leaves_no_text_to_learn_from_says_so(shop: Path) -> None:
    run(shop, "embed", "--untuned")
    with pytest.raises(ArtefactError, match="of any item with 1 to 1 training clicks") as caught:
        run(shop, "distil", "--variant", "frozen-text", **{"distil.text_below": 2})
    assert "distil.text_below" in str(caught.value)


def test_neither_ids_nor_text_is_refused(shop: Path) -> None:
    with pytest.raises(SettingsError, match=r"distil\.text_below leaves clicked items nothing but their IDs"):
        run(shop, "distil", "--variant", "frozen-text", **{"distil.text_below": 5, "distil.controls.ids": "false"})


def test_stale_after_does_not_go_through_a_server(shop: Path) -> None:
    from llmgr_core.errors import InputError

    with pytest.raises(InputError, match="embeds for one model only"):
        run(shop, "embed", "--untuned", "--stale-after", "7d", "--server", "127.0.0.1:1")


def test_a_schedule_may_ask_every_night(shop: Path) -> None:
    run(shop, "embed", "--untuned")
    told = run(shop, "embed", "--untuned", "--stale-after", "7d")
    assert (told["embedded"], told["young"]) == (0, 0)
    other = {"engine.pooling": "last"}
    told = run(shop, "embed", "--untuned", "--stale-after", "7d", **other)
    assert (told["embedded"], told["young"]) == (0, 72)
    told = run(shop, "embed", "--untuned", "--stale-after", "1", **other)
    assert (told["embedded"], told["young"]) == (72, 0)


def test_items_whose_text_has_no_vector_yet_are_told_of(tmp_path: Path) -> None:
    write_tiny_encoder(tmp_path / "model")
    shop = write_shop(tmp_path / "run")
    counts = Dataset.open(shop.dataset).train_counts
    left_out = run(shop.run, "embed", "--untuned", "--below", str(counts.max()))["left_out"]

    def told() -> list[int]:
        lines = invoke(shop.run, "distil", "--variant", "frozen-text", "--force").stderr.splitlines()
        return [one["items"] for one in map(json.loads, lines) if one["event"] == "items whose text has no vector"]

    assert told() == [left_out]
    run(shop.run, "embed", "--untuned")
    assert told() == []
