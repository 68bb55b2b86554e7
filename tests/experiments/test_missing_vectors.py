"""A row whose text vectors are not in the store is named with the way out; the other rows go on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from small_runs import SMALL, invoke
from tiny_models import write_tiny_encoder

from llmgr_core.errors import LlmgrError

ROWS = """
title = "Toy"
about = "One ranker needs text."
reference = "floor"

[[row]]
name = "text"
label = "text of the untuned model"
variant = "frozen-text"

[[row]]
name = "stale"
label = "half stale"
variant = "frozen-text"
stale = { share = 0.5, vectors = "untuned" }
"""
FLOOR = """
[[row]]
name = "floor"
label = "floor"
scorer = "floor"
"""


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Path:
    write_tiny_encoder(tmp_path / "model")
    return Path(shutil.copytree(small_run, tmp_path / "run", ignore=shutil.ignore_patterns("experiments")))


def step(run: Path, *words: str, tokens: int) -> str:
    options = [f"engine.model={run.parent / 'model'}", f"engine.max_tokens={tokens}", "distil.text_rank=4"]
    settings = [*SMALL, *(word for one in options for word in ("--set", one))]
    return invoke(*words, "--run", str(run), "--json", *settings)


def conduct(run: Path, toml: str, tokens: int, *options: str) -> tuple[list[str], dict[str, str]]:
    """Rows that were ranked, and why each other one was not."""
    toy = run.parent / "toy.toml"
    toy.write_text(toml)
    step(run, "experiment", str(toy), *options, tokens=tokens)
    result = json.loads((run / "experiments" / "toy.json").read_text())
    assert set(result["splits"]["test"]["scorers"]) == {row["name"] for row in result["rows"]}
    return [row["name"] for row in result["rows"]], {row["name"]: row["why"] for row in result["not_run"]}


def test_a_ranker_is_not_trained_without_vectors_and_the_other_rows_go_on(run: Path) -> None:
    step(run, "embed", "--untuned", tokens=16)
    rows, missing = conduct(run, ROWS + FLOOR, 24)
    assert rows == ["floor"]
    assert set(missing) == {"text", "stale"}
    for why in missing.values():
        assert f"{run / 'store'} holds no" in why
        assert "run `llmgr embed" in why
    assert not list((run / "experiments" / "steps").glob("ranker-*"))


def test_a_trained_ranker_whose_vectors_are_gone_is_named(run: Path) -> None:
    step(run, "embed", "--untuned", tokens=24)
    assert conduct(run, ROWS + FLOOR, 24) == (["text", "stale", "floor"], {})
    shutil.rmtree(run / "store")
    shutil.rmtree(run / "experiments" / "ranks")
    step(run, "embed", "--untuned", tokens=16)
    rows, missing = conduct(run, ROWS + FLOOR, 24, "--collect")
    assert rows == ["floor"]
    assert all("run `llmgr embed" in missing[name] for name in ("text", "stale"))
    with pytest.raises(LlmgrError, match=r"no row of toy has anything to rank: text: .* run `llmgr embed"):
        conduct(run, ROWS.replace('reference = "floor"', ""), 24, "--collect")
