"""``llmgr insert``: put items into a running system."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from llmgr_core.errors import InputError
from services.commands.connecting import client_security, security_options
from services.commands.json_lines import EXIT_CODES, STANDARD_INPUT, end_with_refusals, numbered_lines, plain, print_line

if TYPE_CHECKING:
    from llmgr_core.data.item import Item
    from services.client import EmbeddingClient

CATEGORY_SEPARATOR = ">"


@click.command("insert", epilog=EXIT_CODES)
@click.argument("item_id", required=False)
@click.option("--title")
@click.option("--description")
@click.option("--brand")
@click.option("--category", "categories", multiple=True, metavar="'A > B > C'", help="A category path; may be repeated.")
@click.option("--attribute", "attributes", multiple=True, metavar="NAME=VALUE", help="May be repeated.")
@click.option(
    "--file",
    "file",
    type=click.File("r", encoding="utf-8", errors="strict"),
    help="JSON lines, one item each, instead of the options above; - is standard input. With --delete one id a line.",
)
@click.option("--delete", is_flag=True, help="Take ITEM_ID, or every id of --file, out of every ranking instead.")
@click.option("--address", default="127.0.0.1:50051", show_default=True, help="Embedding server.")
@click.option("--timeout", type=click.FloatRange(0.01), default=60.0, show_default=True, help="Seconds for a single item.")
@security_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
def command(
    *,
    item_id: str | None,
    title: str | None,
    description: str | None,
    brand: str | None,
    categories: tuple[str, ...],
    attributes: tuple[str, ...],
    file: IO[str] | None,
    delete: bool,
    address: str,
    timeout: float,
    as_json: bool,
    **security: Path | None,
) -> None:
    """Insert or change items through EmbedItem; they can be ranked as soon as this returns.

    \b
    llmgr insert B00X --title "Rose hand cream" --brand Acme --category "Beauty > Hands"
    llmgr insert --file new_items.jsonl > outcomes.jsonl
    producer | llmgr insert -
    llmgr insert B00X --delete
    cut -f1 withdrawn.tsv | llmgr insert - --delete

    A JSON line has the fields of the data format: item_id, title, description, brand, categories, attributes. Each line is
    answered with a line of JSON when its item is on disk, not in the order of the file: "index" counts the items from 0. If the
    server is restarted meanwhile, the command waits for it and goes on. Running the same file again costs next to nothing.
    """
    from services.client import EmbeddingClient

    if item_id == STANDARD_INPUT and file is None:
        item_id, file = None, click.open_file(STANDARD_INPUT, encoding="utf-8", errors="strict")
    if (item_id is None) == (file is None):
        raise click.UsageError("give an ITEM_ID with its texts, or --file")
    if delete and (title or description or brand or categories or attributes):
        raise click.UsageError("--delete takes ids, no texts")
    if file is not None and (title or description or brand or categories or attributes):
        raise click.UsageError("the items of --file bring their own texts")
    with EmbeddingClient(address, timeout=timeout, security=client_security(security)) as client:
        if file is not None:
            refused = _delete_lines(client, file, as_json) if delete else _insert_lines(client, file, as_json)
            end_with_refusals(refused, "items were")
            return
        assert item_id is not None
        if delete:
            _delete(client, item_id, as_json)
            return
        item = _item_from_options(
            item_id, title=title, description=description, brand=brand, categories=categories, attributes=attributes
        )
        _show(plain(client.embed(item)), as_json)


def _insert_lines(client: EmbeddingClient, lines: IO[str], as_json: bool) -> int:
    """Insert an item a line; returns how many the server refused."""
    from services.client import RejectedItem

    refused = 0
    for outcome in client.embed_many(_read_items(lines)):
        refused += isinstance(outcome, RejectedItem)
        _show(plain(outcome), as_json)
    return refused


def _delete_lines(client: EmbeddingClient, lines: IO[str], as_json: bool) -> int:
    """Delete an id a line; returns how many the server refused."""
    from services.client import ServiceError

    refused = 0
    for number, item_id in numbered_lines(lines):
        try:
            _delete(client, item_id, as_json)
        except ServiceError as error:
            if error.code.name != "INVALID_ARGUMENT":
                raise
            refused += 1
            failure = {"index": number - 1, "item_id": item_id, "code": error.code.name, "message": error.details}
            _show(failure, as_json)
    return refused


def _delete(client: EmbeddingClient, item_id: str, as_json: bool) -> None:
    deleted = client.delete(item_id)
    facts = {"item_id": deleted.item_id, "deleted": True, "existed": deleted.existed, "sequence": deleted.sequence}
    _show(facts, as_json)


def _item_from_options(
    item_id: str,
    *,
    title: str | None,
    description: str | None,
    brand: str | None,
    categories: tuple[str, ...],
    attributes: tuple[str, ...],
) -> Item:
    from llmgr_core.data.item import Item

    named = {}
    for attribute in attributes:
        name, equals, value = attribute.partition("=")
        if not equals or not name:
            raise click.UsageError(f"--attribute {attribute!r} is not of the form NAME=VALUE")
        named[name] = value
    paths = tuple(tuple(part.strip() for part in path.split(CATEGORY_SEPARATOR)) for path in categories)
    return Item(item_id, title, description, brand, paths, named)


def _read_items(lines: IO[str]) -> Iterator[Item]:
    """Items of JSON lines.

    Raises:
        InputError: a line is no JSON object, or a field is of another type; the message names the line.
    """
    for number, line in numbered_lines(lines):
        yield item_from_json(line, f"{lines.name}:{number}")


def item_from_json(line: str, place: str) -> Item:
    """One item of a JSON line.

    Args:
        line: a JSON object with the fields of Item; only item_id is required.
        place: file and line, for the message.

    Raises:
        InputError: no JSON object, an unknown field, or a field of another type.
    """
    from llmgr_core.data.item import Item

    try:
        value = json.loads(line)
    except ValueError as error:
        raise InputError(f"{place}: no JSON: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{place}: a JSON object is needed, not {type(value).__name__}")
    unknown = value.keys() - {"item_id", "title", "description", "brand", "categories", "category", "attributes"}
    if unknown:
        raise InputError(f"{place}: unknown field {min(unknown)!r}", "put further properties under attributes")
    if not isinstance(value.get("item_id"), str):
        raise InputError(f"{place}: item_id is missing or no text")
    texts: dict[str, Any] = {name: value.get(name) for name in ("title", "description", "brand")}
    for name, text in texts.items():
        if text is not None and not isinstance(text, str):
            raise InputError(f"{place}: {name} is {json.dumps(text)}, not a text")
    categories, attributes = value.get("categories") or value.get("category") or [], value.get("attributes") or {}
    if not isinstance(categories, list) or not all(_is_text_list(path) for path in categories):
        raise InputError(f"{place}: categories is not a list of lists of texts")
    if not isinstance(attributes, dict) or not all(isinstance(one, str) for one in attributes.values()):
        raise InputError(f"{place}: attributes is not an object of texts")
    return Item(value["item_id"], **texts, categories=tuple(tuple(path) for path in categories), attributes=attributes)


def _is_text_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _show(fields: dict[str, Any], as_json: bool) -> None:
    if as_json or not sys.stdout.isatty():
        print_line(fields)
        return
    if "code" in fields:
        click.echo(f"{fields['item_id']}  refused: {fields['code']} {fields['message']}")
    elif "deleted" in fields:
        click.echo(f"{fields['item_id']}  deleted  sequence {fields['sequence']}")
    else:
        how = "vector known" if fields["cached"] else f"embedded in {fields['timing']['model_ms']:.1f} ms"
        total = fields["timing"]["total_ms"]
        click.echo(f"{fields['item_id']}  {how}  sequence {fields['sequence']}  server {total:.1f} ms")
