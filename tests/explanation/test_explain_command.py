"""``llmgr explain`` on a small run, from files to tables, JSON and pictures."""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from tiny_models import write_tiny_encoder

from llmgr_core.artefacts import open_artefact
from llmgr_core.command_line.main import llmgr
from llmgr_core.data import Dataset
from llmgr_core.data.item import Item
from llmgr_core.errors import InputError
from llmgr_core.ranker import RankerRuntime
from llmgr_core.ranker.stored import StoredRanker
from llmgr_core.store import EmbeddingStore
from trainer.commands.explain import command

ITEMS = 24
COLOURS, THINGS = ("red", "blue", "green"), ("lipstick", "cream", "brush", "comb", "soap", "towel", "mirror", "powder")


def run_step(directory: Path, step: str, model: Path, *more: str) -> None:
    options = ["--set", "threads=1", "--set", "encoder.dimension=8", "--set", "distil.encoder.dimension=8"]
    options += ["--set", "pretrain.epochs=1", "--set", "distil.epochs=2", "--set", "distil.teacher=false"]
    options += ["--set", f"engine.model={model}", "--set", "engine.max_tokens=32"]
    arguments = [step, "--run", str(directory), "--json", *options, *more]
    result = CliRunner().invoke(llmgr, arguments, standalone_mode=False)
    if result.exception is not None:
        raise result.exception


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_encoder(tmp_path_factory.mktemp("explain-model") / "encoder")


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """Data, backbone, text vectors of an untuned tiny model, a ranker with text and one without; id-23 has no text."""
    root = tmp_path_factory.mktemp("explain")
    data = root / "data"
    data.mkdir()
    rng = np.random.default_rng(0)
    items = [
        {
            "item_id": f"id-{n}",
            "title": f"{COLOURS[n % 3]} {THINGS[n % 8]}",
            "brand": f"Maker {n % 2}",
            "categories": [["Beauty", THINGS[n % 8]]],
        }
        for n in range(ITEMS)
    ]
    items[23] = {"item_id": "id-23"}
    sessions = [
        {"session_id": str(n), "items": [f"id-{(start + step) % ITEMS}" for step in range(6)]}
        for n, start in enumerate(rng.integers(0, ITEMS, size=120))
    ]
    for name, rows in (("items", items), ("sessions", sessions)):
        (data / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = root / "run"
    run_step(run, "prepare", model, "--set", f"data.source={data}")
    run_step(run, "pretrain", model)
    run_step(run, "embed", model, "--untuned")
    run_step(run, "distil", model, "--variant", "frozen-text")
    run_step(run, "distil", model, "--variant", "id-only")
    return run


def explain(run: Path, model: Path, *arguments: str) -> Result:
    kind, *rest = arguments
    options = ["--run", str(run), "--set", "threads=1", "--set", f"engine.model={model}", "--set", "engine.max_tokens=32"]
    result = CliRunner().invoke(command, [kind, *options, *rest], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result


def told(run: Path, model: Path, *arguments: str) -> dict:
    return json.loads(explain(run, model, *arguments, "--json").stdout)


def test_a_session_as_json_says_what_the_server_would_answer(small_run: Path, model: Path) -> None:
    named_twice = ("--candidate", "id-20", "--candidate", "id-20")
    record = told(small_run, model, "session", "id-3", "id-4", "id-3", "--top-k", "5", *named_twice)
    dataset = Dataset.open(open_artefact(small_run / "dataset", "dataset"))
    stored = StoredRanker.read(small_run / "ranker-frozen-text")
    with EmbeddingStore.open(small_run / "store") as store:
        vectors, present = store.read_vectors(dataset.item_ids, stored.description.fingerprint)
    snapshot = RankerRuntime(stored.parts("v", dataset.item_ids), vectors, present).snapshot
    clicks = snapshot.indices(["id-3", "id-4", "id-3"])
    ranking = snapshot.rank(clicks, 5)
    assert record["ranker"]["variant"] == "frozen-text"
    assert [one["item_id"] for one in record["items"][:5]] == [snapshot.item_id(index) for index in ranking.indices]
    assert [one["probability"] for one in record["items"][:5]] == pytest.approx(ranking.probabilities.tolist(), abs=1e-5)
    assert [one["item_id"] for one in record["items"]].count("id-20") == 1
    for one in record["items"]:
        assert sum(one["parts"].values()) == pytest.approx(one["score"], abs=1e-4)
        assert sum(each["transitions"] for each in one["clicks"]) == pytest.approx(one["parts"]["transitions"], abs=1e-4)
    without = snapshot.rank(np.delete(clicks, 1), ITEMS, exclude=clicks)
    first = record["items"][0]
    place = without.indices.tolist().index(snapshot.index_of(first["item_id"]))
    assert first["clicks"][1]["rank_without"] == place + 1
    assert first["clicks"][1]["score_drop"] == pytest.approx(first["score"] - without.scores[place], abs=1e-4)
    assert sum(abs(one["attention_share"]) for one in record["clicks"]) == pytest.approx(1.0, abs=1e-4)
    assert record["words"] is None


def test_a_session_as_tables_names_titles_and_the_click_that_carries(small_run: Path, model: Path) -> None:
    shown = explain(small_run, model, "session", "id-3", "id-4").stdout
    assert "blue soap" in shown
    assert "(an average item)" in shown
    assert "Without each click" in shown
    assert "carries" in shown


def test_an_item_that_is_never_ranked_says_so(small_run: Path, model: Path, tmp_path: Path) -> None:
    """A clicked item is no recommendation: no click carries it, alone or among others."""
    for clicks in (("id-3",), ("id-3", "id-4")):
        found = told(small_run, model, "session", *clicks, "--candidate", "id-3", "--top-k", "1")["items"][-1]
        assert (found["item_id"], found["rank"], found["strongest_click"]) == ("id-3", None, None)
        plot = ("--plot", str(tmp_path / "seen.svg"))
        shown = explain(small_run, model, "session", *clicks, "--candidate", "id-3", "--top-k", "1", *plot).stdout
        assert "(never ranked)" in shown
        assert "#0" not in shown
        assert "never. " in (tmp_path / "seen.svg").read_text()


def test_a_test_example_shows_what_came_next(small_run: Path, model: Path) -> None:
    dataset = Dataset.open(open_artefact(small_run / "dataset", "dataset"))
    record = told(small_run, model, "session", "--test-example", "3", "--top-k", "2")
    assert [one["item_id"] for one in record["clicks"]] == [dataset.item_ids[index] for index in dataset.test.prefix(3)]
    assert record["target"] == dataset.item_ids[int(dataset.test.targets[3])]
    assert record["target"] in [one["item_id"] for one in record["items"]]
    assert "clicked next: " in explain(small_run, model, "session", "--test-example", "3").stdout
    with pytest.raises(InputError, match="--test-example 9999: the data set has"):
        told(small_run, model, "session", "--test-example", "9999")


def test_words_are_embedded_by_the_engine_of_the_run(small_run: Path, model: Path) -> None:
    record = told(small_run, model, "session", "id-3", "id-23", "--top-k", "3", "--words")
    owners = [one["text_of"] for one in record["words"]]
    assert owners[0] == "id-3"
    assert record["without_text"][0] == "id-23"
    first = record["words"][0]
    labels = [unit["label"] for unit in first["units"]]
    assert labels == ["(the whole text)", "Brand: Maker 1", "Category: Beauty > comb", "red", "comb"]
    assert first["agreement"] == pytest.approx(1.0, abs=1e-3)
    assert all(len(unit["score_drops"]) == 3 for unit in first["units"])
    assert any(abs(drop) > 1e-4 for unit in first["units"] for drop in unit["score_drops"])
    shown = explain(small_run, model, "session", "id-3", "id-23", "--words").stdout
    assert "has no text" in shown


def test_words_need_a_ranker_with_text_and_its_own_engine(small_run: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="reads no text"):
        told(small_run, model, "session", "id-3", "--words", "--variant", "id-only")
    other = write_tiny_encoder(tmp_path / "other", seed=1)
    with pytest.raises(Exception, match="not the one whose vectors"):
        told(small_run, other, "session", "id-3", "--words")


def test_an_item_has_neighbours_in_every_space(small_run: Path, model: Path) -> None:
    record = told(small_run, model, "item", "id-3", "--neighbours", "4")
    assert list(record["spaces"]) == ["clicks", "text", "id part", "fused", "transitions"]
    for name, space in record["spaces"].items():
        ids = [one["item_id"] for one in space["neighbours"]]
        assert len(ids) == len(set(ids)) == 4, name
        assert "id-3" not in ids
        assert [one["similarity"] for one in space["neighbours"]] == sorted(
            (one["similarity"] for one in space["neighbours"]), reverse=True
        )
    assert record["spaces"]["transitions"]["neighbours"][0]["item_id"] == "id-4"
    assert record["spaces"]["transitions"]["neighbours"][0]["training_sessions_together"] > 0
    shared = {tuple(one["spaces"]): one["items"] for one in record["shared"]}
    text, fused = ({one["item_id"] for one in record["spaces"][name]["neighbours"]} for name in ("text", "fused"))
    assert shared["text", "fused"] == len(text & fused)
    assert record["by_chance"]["same_brand"] == pytest.approx(10 / 23, abs=1e-3)
    shown = explain(small_run, model, "item", "id-3").stdout
    assert "red comb" in shown
    assert "How far the lists agree" in shown


def test_an_item_without_text_and_a_ranker_without_text_say_so(small_run: Path, model: Path) -> None:
    record = told(small_run, model, "item", "id-23")
    assert record["spaces"]["text"]["neighbours"] is None
    assert record["spaces"]["fused"]["neighbours"]
    assert "text: the item has none" in explain(small_run, model, "item", "id-23").stdout
    without = told(small_run, model, "item", "id-3", "--variant", "id-only")
    assert list(without["spaces"]) == ["fused", "transitions"]


@pytest.mark.parametrize(
    "arguments", [("item", "id-33"), ("session", "id-3", "id-33"), ("session", "id-3", "--candidate", "id-33")]
)
def test_an_unknown_id_is_named_with_known_ones_like_it(arguments: tuple[str, ...], small_run: Path, model: Path) -> None:
    with pytest.raises(InputError, match=r"no item 'id-33' among the 24 of .*run") as caught:
        told(small_run, model, *arguments)
    assert "did you mean" in str(caught.value)
    assert "id-3 (red comb)" in str(caught.value)


def test_words_of_a_title_find_its_id(small_run: Path, model: Path) -> None:
    with pytest.raises(InputError, match=r"did you mean .*id-4 \(blue soap\)"):
        told(small_run, model, "item", "Soap blue")
    with pytest.raises(InputError, match="ids are those of the item file"):
        told(small_run, model, "item", "?")


def test_clicks_or_an_example_but_not_both_nor_none(small_run: Path, model: Path) -> None:
    for arguments in (["session"], ["session", "id-3", "--test-example", "0"]):
        with pytest.raises(click.UsageError, match="--test-example N"):
            explain(small_run, model, *arguments)


def test_the_catalogue_is_judged_space_by_space(small_run: Path, model: Path) -> None:
    record = told(small_run, model, "catalogue", "--neighbours", "3")
    assert list(record["shares"]) == ["clicks", "text", "id part", "fused", "any items"]
    assert record["items"]["all"] == ITEMS - 1  # id-23 has no text
    dataset = Dataset.open(open_artefact(small_run / "dataset", "dataset"))
    expected = []
    for item in dataset.item_ids:
        if item != "id-23":
            view = told(small_run, model, "item", item, "--neighbours", "3")["spaces"]["text"]
            expected.append(
                (
                    view["same_category"],
                    view["same_brand"],
                    np.mean([one["training_sessions_together"] > 0 for one in view["neighbours"]]),
                )
            )
    found = record["shares"]["text"]["all"]
    for place, kind in enumerate(("same_category", "same_brand", "clicked_together")):
        assert found[kind] == pytest.approx(np.mean([one[place] for one in expected]), abs=1e-4)
    assert "any items" in explain(small_run, model, "catalogue", "--sample", "5").stdout


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_pictures_are_drawn(ending: str, small_run: Path, model: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    start = {"svg": b"<?xml", "png": b"\x89PNG"}[ending]
    for name, *arguments in (("item", "id-3"), ("session", "id-3", "id-4")):
        path = tmp_path / "new" / f"{name}.{ending}"
        explain(small_run, model, name, *arguments, "--plot", str(path))
        assert path.read_bytes().startswith(start)
        if ending == "svg":
            assert "blue soap" in path.read_text()


def test_a_picture_of_another_kind_is_refused_before_any_work(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.pdf"):
        explain(tmp_path / "nowhere", model, "item", "id-3", "--plot", str(tmp_path / "why.pdf"))


def test_an_item_inserted_since_is_explained_by_its_text(small_run: Path, model: Path) -> None:
    from llmgr_core.engine import SemanticEngine
    from llmgr_core.settings.engine import EngineSettings
    from llmgr_core.store import EmbeddedText, Put, StoreWriter
    from llmgr_core.store.item_record import encode_item
    from llmgr_core.text import TextCleaner

    dataset = Dataset.open(open_artefact(small_run / "dataset", "dataset"))
    cleaner = TextCleaner.from_state(dataset.cleaner_state)
    engine = SemanticEngine.load(EngineSettings(model=str(model), max_tokens=32))
    item = Item("fresh", title="red comb", brand="Maker 1", categories=(("Beauty", "comb"),))
    text = cleaner.clean(item)
    assert text is not None
    embedded = EmbeddedText.of(engine.fingerprint(cleaner.digest), text, engine.embed_texts([text])[0])
    writer = StoreWriter.open(small_run / "store")
    try:
        writer.write([Put("fresh", encode_item(item), (embedded,))])
    finally:
        writer.close()
    record = told(small_run, model, "item", "fresh")
    assert record["item"]["title"] == "red comb"
    assert record["spaces"]["clicks"]["neighbours"] is None
    assert record["spaces"]["text"]["neighbours"][0]["item_id"] == "id-3"
    session = told(small_run, model, "session", "id-2", "--candidate", "fresh", "--words")
    found = next(one for one in session["items"] if one["item_id"] == "fresh")
    assert found["parts"]["id"] == 0.0
    assert "fresh" in [one["text_of"] for one in session["words"]]
