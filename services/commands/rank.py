"""``llmgr rank``: ask a ranking server."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from services.commands.connecting import client_security, security_options

if TYPE_CHECKING:
    from services.client import ClientSecurity, RankedSession

TITLE_WIDTH = 60


@click.command("rank")
@click.argument("item_ids", nargs=-1, metavar="[ITEM_ID]...")
@click.option("--address", default="127.0.0.1:50052", show_default=True, help="Ranking server.")
@click.option("--top-k", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many items to show.")
@click.option("--candidate", "candidates", multiple=True, metavar="ITEM_ID", help="Rank only these; may be repeated.")
@click.option("--exclude", "excluded", multiple=True, metavar="ITEM_ID", help="Never show this item; may be repeated.")
@click.option(
    "--seen/--unseen", "include_seen", default=None, help="Whether clicked items may return; else as the bundle says."
)
@click.option("--min-sequence", type=click.IntRange(0), default=0, help="Wait for this change of the store (at most 1 s).")
@click.option("--titles-from", metavar="ADDRESS", help="Embedding server to ask for titles, for example 127.0.0.1:50051.")
@click.option("--timeout", type=click.FloatRange(0.01), default=5.0, show_default=True, help="Seconds.")
@security_options
@click.option("--json", "as_json", is_flag=True, help="Print the reply as JSON.")
def command(
    *,
    item_ids: tuple[str, ...],
    address: str,
    top_k: int,
    candidates: tuple[str, ...],
    excluded: tuple[str, ...],
    include_seen: bool | None,
    min_sequence: int,
    titles_from: str | None,
    timeout: float,
    as_json: bool,
    **security: Path | None,
) -> None:
    """Rank what may be clicked after ITEM_IDs, oldest click first; without any, by popularity."""
    from services.client import RankingClient

    guarded = client_security(security)
    with RankingClient(address, timeout=timeout, security=guarded) as client:
        ranking = client.rank(
            item_ids,
            top_k=top_k,
            candidate_ids=candidates,
            exclude_item_ids=excluded,
            include_seen=include_seen,
            min_sequence=min_sequence,
        )
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(ranking), indent=2, ensure_ascii=False))
        return
    titles = {} if titles_from is None else _titles(ranking, titles_from, timeout, guarded)
    _print_table(ranking, titles)


def _titles(ranking: RankedSession, address: str, timeout: float, security: ClientSecurity) -> dict[str, str]:
    """Titles that an embedding server knows; without that server the table simply has none."""
    from services.client import EmbeddingClient, ServiceError

    titles = {}
    with EmbeddingClient(address, timeout=timeout, security=security) as client:
        for item_id in (item.item_id for item in ranking.items):
            try:
                titles[item_id] = client.get(item_id).item.title or ""
            except ServiceError as error:
                if error.code.name != "NOT_FOUND":
                    click.echo(f"no titles: {error}", err=True)
                    break
    return titles


def _print_table(ranking: RankedSession, titles: dict[str, str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    columns = ["rank", "item", *(["title"] if titles else []), "probability", "score"]
    for name in columns:
        table.add_column(name, justify="left" if name in {"item", "title"} else "right")
    for place, item in enumerate(ranking.items, 1):
        probability = "" if item.probability is None else f"{item.probability:.4f}"
        # Text: ids and titles are the catalogue's own and may look like markup.
        title = [Text(titles.get(item.item_id, "")[:TITLE_WIDTH])] if titles else []
        table.add_row(str(place), Text(item.item_id), *title, probability, f"{item.score:.3f}")
    console = Console(highlight=False)
    console.print(table)
    if ranking.fallback:
        console.print("by popularity: the session holds no item that the server knows")
    if ranking.unknown_item_ids:
        console.print(Text("unknown: " + ", ".join(ranking.unknown_item_ids)))
    console.print(
        f"bundle {ranking.model_version[:12]}  sequence {ranking.sequence}  server {ranking.timing.total_ms:.2f} ms "
        f"(model {ranking.timing.model_ms:.2f} ms)"
    )
