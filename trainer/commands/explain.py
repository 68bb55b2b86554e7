"""``llmgr explain``: why an item is recommended, and what it is near to."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from llmgr_core.command_line.step import run_option, settings_options
from llmgr_core.errors import InputError
from llmgr_core.progress import Reporter
from llmgr_core.run_directory import RunDirectory
from llmgr_core.settings import Settings, load_settings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from llmgr_core.data import Dataset
    from trainer.explain.explained_run import ExplainedRun

WIDTH_WITHOUT_TERMINAL = 180


@dataclass(frozen=True)
class Asked:
    """What every explanation is given."""

    settings: Settings
    run: ExplainedRun
    reporter: Reporter
    as_json: bool
    plot: Path | None

    def show(self, record: Callable[[], dict[str, Any]], tables: Callable[[], Iterable[RenderableType]]) -> None:
        """Print the record, or the tables, and nothing else, on standard output."""
        if self.as_json:
            click.echo(json.dumps(record(), indent=2, ensure_ascii=False, allow_nan=False))
            return
        from rich.console import Console

        console = Console(highlight=False)
        if not console.is_terminal:
            console = Console(highlight=False, width=WIDTH_WITHOUT_TERMINAL)
        for table in tables():
            console.print(table)


@click.group("explain")
def command() -> None:
    """Look into a trained ranker: why these items, and what an item is near to.

    \b
    llmgr explain item B004ZT0SSG --run runs/shop
    llmgr explain session B004756YJA B004ZT0SSG --run runs/shop --words --plot why.svg
    llmgr explain catalogue --run runs/shop
    """


def _explanation(name: str) -> Callable[[Callable[..., None]], click.Command]:
    """Declare a command of the group; its function gets an Asked first."""

    def declare(function: Callable[..., None]) -> click.Command:
        @command.command(name)
        @run_option("Run directory; its dataset, ranker and store are read, nothing in it is written.")
        @settings_options
        @click.option(
            "--variant",
            type=click.Choice(["fused", "frozen-text", "id-only"]),
            help="Which ranker of the run; by default the first of these that it has.",
        )
        @click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw it too, to this .svg or .png file.")
        @click.option("--json", "as_json", is_flag=True, help="Print everything as JSON instead of tables.")
        @functools.wraps(function)
        def asked(
            run_directory: Path,
            config: Path | None,
            overrides: tuple[str, ...],
            variant: str | None,
            plot: Path | None,
            as_json: bool,
            **options: Any,
        ) -> None:
            settings = load_settings(config, overrides)
            if plot is not None:
                from trainer.explain.plots import require_format

                require_format(plot)
            if settings.threads:
                import torch

                torch.set_num_threads(settings.threads)
            from trainer.explain.explained_run import ExplainedRun

            run = ExplainedRun.open(RunDirectory(run_directory), variant)
            function(Asked(settings, run, Reporter(as_json=True if as_json else None), as_json, plot), **options)

        return asked

    return declare


@_explanation("item")
@click.argument("item_id")
@click.option("--neighbours", "k", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many a list.")
def item_command(asked: Asked, *, item_id: str, k: int) -> None:
    """What an item is near to.

    The neighbours of ITEM_ID by clicks, by text, by both as the ranker sees them, and by transitions. Says how far the
    lists agree, and how many neighbours are of the same category and brand. With words of a title in place of an id,
    names items that have them.
    """
    from trainer.explain.neighbourhood import neighbourhood
    from trainer.explain.records import neighbourhood_record
    from trainer.explain.tables import neighbourhood_tables

    run = asked.run
    found = neighbourhood(run, int(run.indices([item_id])[0]), k)
    asked.show(lambda: neighbourhood_record(run, found), lambda: neighbourhood_tables(run, found))
    if asked.plot is not None:
        from trainer.explain.plots import plot_neighbourhood

        plot_neighbourhood(run, found, asked.plot)


@_explanation("session")
@click.argument("item_ids", nargs=-1, metavar="[ITEM_ID]...")
@click.option(
    "--test-example", type=click.IntRange(min=0), help="Take the clicks of this test example, and show what came next."
)
@click.option("--top-k", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many items to explain.")
@click.option("--candidate", "candidates", multiple=True, metavar="ITEM_ID", help="Explain this item too, wherever it stands.")
@click.option("--words", is_flag=True, help="Leave out each word too, and embed the rest again: loads the language model.")
def session_command(
    asked: Asked, *, item_ids: tuple[str, ...], test_example: int | None, top_k: int, candidates: tuple[str, ...], words: bool
) -> None:
    """What carried each recommendation of a session.

    Ranks what may be clicked after ITEM_IDs (oldest first). Takes every score apart into ID, text and transitions; ranks
    again without each click; shows the encoder's attention, and which click leads to which item in the transition graph.
    With --words also which words of the clicked items and of the recommended one carry it.
    """
    from llmgr_core.explanation.click_evidence import sessions_followed
    from llmgr_core.explanation.occlusion import clicks_looked_at
    from llmgr_core.explanation.session import explain_session
    from trainer.explain.records import ExplainedSession, session_record
    from trainer.explain.tables import session_tables

    run = asked.run
    if bool(item_ids) == (test_example is not None):
        raise click.UsageError("give the ids of the clicked items, or --test-example N")
    target = None
    if test_example is None:
        clicks = run.indices(item_ids)
    else:
        clicks, target = _example(run.dataset, test_example)
    # Embedding texts comes last: wrong ids are found before a language model is loaded.
    further = np.append(run.indices(candidates), [] if target is None else [target]).astype(np.int64)
    embed = run.language_model(asked.settings.engine, asked.reporter) if words else None
    snapshot = run.runtime.snapshot
    explanation = explain_session(snapshot, run.attention, clicks, top_k, further)
    followed = sessions_followed(run.dataset.train, explanation.clicks, explanation.items, snapshot.num_items)
    effects, without_text = None, []
    if embed is not None and explanation.parts is not None:
        from llmgr_core.explanation.word_effects import word_effects

        chosen = dict.fromkeys([*explanation.clicks[-clicks_looked_at(snapshot) :].tolist(), *explanation.items.tolist()])
        texts = {item: run.text(item) for item in chosen}
        without_text = [item for item, text in texts.items() if not text.text]
        vectors = {item: run.vector(item) for item in chosen}
        effects = word_effects(run.runtime, explanation.clicks, explanation.items, texts, vectors, embed)
    found = ExplainedSession(explanation, followed, effects, target, without_text)
    asked.show(lambda: session_record(run, found), lambda: session_tables(run, found))
    if asked.plot is not None:
        from trainer.explain.plots import plot_session

        plot_session(run, found, asked.plot)


@_explanation("catalogue")
@click.option("--sample", type=click.IntRange(1), default=1000, show_default=True, help="How many items to look at.")
@click.option("--neighbours", "k", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many of each.")
def catalogue_command(asked: Asked, *, sample: int, k: int) -> None:
    """Whether near items are alike.

    Share of neighbours of the same category and brand, and clicked together, for every space that the run has, against
    items drawn at random, by training clicks of the item.
    """
    from trainer.explain.catalogue_check import catalogue_record, catalogue_table, check_catalogue

    if asked.plot is not None:
        raise click.UsageError("explain catalogue draws nothing; leave --plot out")
    check = check_catalogue(asked.run, sample, k, asked.settings.seed, asked.reporter)
    asked.show(lambda: catalogue_record(asked.run, check), lambda: [catalogue_table(check)])


def _example(dataset: Dataset, number: int) -> tuple[Any, int]:
    examples = dataset.test
    if number >= len(examples):
        raise InputError(f"--test-example {number}: the data set has {len(examples):,} test examples", "they count from 0")
    return examples.prefix(number).astype(np.int64), int(examples.targets[number])
