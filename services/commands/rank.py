"""``llmgr rank``: ask a ranking server."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from llmgr_core.errors import InputError
from services.commands.connecting import client_security, security_options
from services.commands.json_lines import EXIT_CODES, STANDARD_INPUT, end_with_refusals, numbered_lines, print_line

if TYPE_CHECKING:
    from services.client import ClientSecurity, RankedSession, RankingClient

TITLE_WIDTH = 60


@click.command("rank", epilog=EXIT_CODES)
@click.argument("item_ids", nargs=-1, metavar="[ITEM_ID]...")
@click.option(
    "--sessions",
    type=click.File("r", encoding="utf-8", errors="strict"),
    help="Rank every line of this file instead; - is standard input.",
)
@click.option(
    "--address", default="127.0.0.1:50052", show_default=True, help="Ranking server; several replicas with commas between them."
)
@click.option("--top-k", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many items to show.")
@click.option("--candidate", "candidates", multiple=True, metavar="ITEM_ID", help="Rank only these; may be repeated.")
@click.option("--exclude", "excluded", multiple=True, metavar="ITEM_ID", help="Never show this item; may be repeated.")
@click.option(
    "--seen/--unseen", "include_seen", default=None, help="Whether clicked items may return; else as the bundle says."
)
@click.option("--min-sequence", type=click.IntRange(0), default=0, help="Wait for this change of the store (at most 1 s).")
@click.option("--titles-from", metavar="ADDRESS", help="Embedding server to ask for titles, for example 127.0.0.1:50051.")
@click.option("--timeout", type=click.FloatRange(0.01), default=5.0, show_default=True, help="Seconds for a call.")
@security_options
@click.option("--json", "as_json", is_flag=True, help="Print the reply as JSON; always so for --sessions.")
@click.option("--ids", "as_ids", is_flag=True, help="Print item ids alone: one a line, or with --sessions one session a line.")
def command(
    *,
    item_ids: tuple[str, ...],
    sessions: IO[str] | None,
    address: str,
    top_k: int,
    candidates: tuple[str, ...],
    excluded: tuple[str, ...],
    include_seen: bool | None,
    min_sequence: int,
    titles_from: str | None,
    timeout: float,
    as_json: bool,
    as_ids: bool,
    **security: Path | None,
) -> None:
    """Rank what may be clicked after ITEM_IDs, oldest click first; without any, by popularity.

    \b
    llmgr rank B00021DJ32 B0009RF9DW --titles-from 127.0.0.1:50051
    llmgr rank B00021DJ32 --ids | head -3
    echo "B00021DJ32 B0009RF9DW" | llmgr rank -
    llmgr rank --sessions clicks.jsonl > rankings.jsonl

    ITEM_ID - reads sessions from standard input, as --sessions - does. A line is a session: ids with blanks between them, a
    JSON list of ids, or a JSON object with "item_ids" and whatever you want back beside the ranking, such as a session_id. Each
    line is answered at once with a line of JSON; one that is refused is answered with "error", and the others go on.
    """
    from services.client import RankingClient

    if item_ids == (STANDARD_INPUT,) and sessions is None:
        item_ids, sessions = (), click.open_file(STANDARD_INPUT, encoding="utf-8", errors="strict")
    if item_ids and sessions is not None:
        raise click.UsageError("give ITEM_IDs, or sessions to read, not both")
    if as_json and as_ids:
        raise click.UsageError("--json and --ids exclude each other")
    options: dict[str, Any] = {
        "top_k": top_k,
        "candidate_ids": candidates,
        "exclude_item_ids": excluded,
        "include_seen": include_seen,
        "min_sequence": min_sequence,
    }
    guarded = client_security(security)
    with RankingClient(address, timeout=timeout, security=guarded) as client:
        if sessions is not None:
            end_with_refusals(_rank_lines(client, sessions, options, as_ids=as_ids), "sessions were")
            return
        ranking = client.rank(item_ids, **options)
    if as_ids:
        for item in ranking.items:
            click.echo(item.item_id)
    elif as_json:
        click.echo(json.dumps(dataclasses.asdict(ranking), indent=2, ensure_ascii=False))
    else:
        _print_table(ranking, {} if titles_from is None else _titles(ranking, titles_from, timeout, guarded))


def _rank_lines(client: RankingClient, lines: IO[str], options: dict[str, Any], *, as_ids: bool) -> int:
    """Answer every line; returns how many were refused."""
    from services.client import ServiceError

    refused = 0
    for number, line in numbered_lines(lines):
        place = f"{lines.name}:{number}"
        returned: dict[str, Any] = {"line": number}
        try:
            item_ids, returned = session_from_line(line, place, number)
            ranking = client.rank(item_ids, **options)
        except (InputError, ServiceError) as error:
            if isinstance(error, ServiceError) and error.code.name != "INVALID_ARGUMENT":
                raise
            refused += 1
            if as_ids:
                click.echo("")
                click.echo(f"{place}: {error}", err=True)
            else:
                print_line({**returned, "error": error.args[0]})
            continue
        if as_ids:
            click.echo(" ".join(item.item_id for item in ranking.items))
        else:
            print_line({**returned, **dataclasses.asdict(ranking)})
    return refused


def session_from_line(line: str, place: str, number: int) -> tuple[list[str], dict[str, Any]]:
    """Clicks of a line, and what stands beside its ranking.

    Args:
        line: ids with blanks between them, a JSON list of ids, or a JSON object with item_ids.
        place: file and line, for the message.
        number: given back as "line" where the line itself has nothing to give back.

    Raises:
        InputError: a list or an object that holds no list of ids.
    """
    value: Any = line.split()
    if line[0] in "[{":
        try:
            value = json.loads(line)
        except ValueError as error:
            raise InputError(f"{place}: no JSON: {error}") from None
    beside = {"line": number}
    if isinstance(value, dict):
        beside = {name: given for name, given in value.items() if name != "item_ids"} or beside
        value = value.get("item_ids")
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise InputError(f"{place}: item_ids is no list of texts")
    return value, beside


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
