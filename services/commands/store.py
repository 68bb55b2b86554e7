"""``llmgr store``: looking after the embedding store."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmgr_core.command_line.step import run_option
from llmgr_core.run_directory import RunDirectory

if TYPE_CHECKING:
    from llmgr_core.store import EmbeddingStore

SHOWN = 20


@click.group("store")
def command() -> None:
    """Look after the embedding store: check it, mend it, make it smaller, save and restore it.

    verify, info, readers and export work on a store in use; the others need the embedding server stopped, never the ranking
    servers. Prints JSON where standard output is no terminal, or with --json.
    """


def store_command(name: str) -> Callable[[Callable[..., dict[str, Any]]], click.Command]:
    """Declare a subcommand: a function of the store's directory and its own options that returns what is printed."""

    def declare(function: Callable[..., dict[str, Any]]) -> click.Command:
        @command.command(name)
        @run_option("Run whose store it is.")
        @click.option("--store", type=click.Path(file_okay=False, path_type=Path), help="The store's own directory instead.")
        @click.option("--json", "as_json", is_flag=True, help="Print JSON even on a terminal.")
        @functools.wraps(function)
        def subcommand(run_directory: Path, store: Path | None, as_json: bool, **options: Any) -> None:
            path = store or RunDirectory(run_directory).store
            try:
                _show({"store": str(path), **function(path, **options)}, as_json)
            except _FoundError as found:
                from llmgr_core.store import StoreDamagedError

                _show({"store": str(path), **found.facts}, as_json)
                raise StoreDamagedError(found.message, found.way_out) from None

        return subcommand

    return declare


class _FoundError(Exception):
    """Facts to print before the command fails."""

    def __init__(self, facts: dict[str, Any], message: str, way_out: str) -> None:
        super().__init__(message)
        self.facts, self.message, self.way_out = facts, message, way_out


@store_command("info")
def info(path: Path) -> dict[str, Any]:
    """Say what is in the store, and how many items still lack a vector of each encoder."""
    from llmgr_core.store import EmbeddingStore
    from llmgr_core.store.place import DATA_NAME

    with EmbeddingStore.open(path) as store:
        active = store.active_fingerprint()
        encoders = [
            {**asdict(one), "active": one.fingerprint == active, "missing": len(store.missing_vectors(one.fingerprint))}
            for one in store.encoders()
        ]
        size = (path / DATA_NAME).stat().st_size
        return {"epoch": store.epoch, "sequence": store.sequence(), **store.counts(), "bytes": size, "encoders": encoders}


@store_command("verify")
def verify(path: Path) -> dict[str, Any]:
    """Check every page and every record; name each that is damaged. Fails where there is one."""
    from llmgr_core.store.verification import verify_store

    report = verify_store(path)
    facts = {
        "sound": report.sound,
        "vectors": report.vectors,
        "items": report.items,
        "changes": report.changes,
        "found": dict(report.found),
        "findings": [asdict(finding) for finding in report.findings],
    }
    if not report.sound:
        count = sum(report.found.values())
        raise _FoundError(
            facts, f"{path}: {count} things are wrong", "`llmgr store repair` takes them out and says what it was"
        )
    return facts


@store_command("repair")
@click.option("--salvage", is_flag=True, help="The file itself is damaged: make a store of every record in it that is whole.")
def repair(path: Path, salvage: bool) -> dict[str, Any]:
    """Take damaged records out, so that they are embedded or inserted again, and say which.

    Items under embed_again get a new vector from `llmgr embed`, or from the embedding server once it runs. What items under
    insert_again were is lost; `llmgr embed` inserts those of the data set, the catalogue's owner the others.
    """
    from llmgr_core.store.repair import repair_store
    from llmgr_core.store.salvage import salvage_store

    report = salvage_store(path) if salvage else repair_store(path)
    return {"sound_before": report.nothing, **asdict(report)}


@store_command("compact")
def compact(path: Path) -> dict[str, Any]:
    """Write the store anew without its free pages. Ranking servers change over to the new file by themselves."""
    from llmgr_core.store.compaction import compact_store

    report = compact_store(path)
    return {"bytes_before": report.before, "bytes_after": report.after}


@store_command("prune")
@click.option(
    "--keep-changes", type=click.IntRange(0), default=100_000, show_default=True, help="Newest changes that all stay."
)
@click.option("--forget", multiple=True, metavar="FINGERPRINT", help="Drop the vectors of this encoder too; may be repeated.")
def prune(path: Path, keep_changes: int, forget: tuple[str, ...]) -> dict[str, Any]:
    """Drop vectors of texts that no item has any more, and old changes that a later one of the same item stands for.

    The file stays as large as it is, with room for what comes: `llmgr store compact` makes it smaller.
    """
    from llmgr_core.store import StoreWriter
    from llmgr_core.store.pruning import Pruning

    with StoreWriter.open(path) as store:
        return asdict(Pruning(store, keep_changes, [_encoder(store, one) for one in forget]).run())


@store_command("activate")
@click.argument("fingerprint")
def activate(path: Path, fingerprint: str) -> dict[str, Any]:
    """Make FINGERPRINT (or the beginning of it) the encoder that an embedding server writes for.

    This is the way back after a new model was not the better one: both models' vectors are still there. Items that came since
    get the missing ones from the server, in the background.
    """
    from llmgr_core.store import StoreWriter

    with StoreWriter.open(path) as store:
        before, chosen = store.active_fingerprint(), _encoder(store, fingerprint)
        store.activate(next(one for one in store.encoders() if one.fingerprint == chosen))
        return {"before": before, "active": chosen, "missing": len(store.missing_vectors(chosen))}


@store_command("promote")
def promote(path: Path) -> dict[str, Any]:
    """Make a replica a store of its own, to go on where its embedding host was lost; its replica process must be stopped.

    It gets an epoch of its own. An embedding server can write to it then, and a publisher send it to the other ranking hosts.
    """
    from llmgr_core.store.replica import promote as make_own

    return {"epoch": make_own(path)}


@store_command("export")
@click.argument("directory", type=click.Path(path_type=Path))
def export(path: Path, directory: Path) -> dict[str, Any]:
    """Write all of the store to DIRECTORY as Parquet files; they restore it bit for bit, on any machine."""
    from llmgr_core.store.parquet import export_store

    return {"directory": str(directory), **asdict(export_store(path, directory))}


@store_command("import")
@click.argument("directory", type=click.Path(path_type=Path))
def restore(path: Path, directory: Path) -> dict[str, Any]:
    """Make the store from what `llmgr store export` wrote to DIRECTORY. There must be none yet."""
    from llmgr_core.store.parquet import import_store

    return {"directory": str(directory), **asdict(import_store(directory, path))}


@store_command("readers")
def readers(path: Path) -> dict[str, Any]:
    """List the processes that read the store, and free the places of those that died."""
    from llmgr_core.store import EmbeddingStore

    with EmbeddingStore.open(path, check_structure=False) as store:
        cleared = store.clear_dead_readers()
        rows = [{"pid": pid, "transaction": number} for pid, number in store.readers()]
        return {"transaction": store.transaction_id(), "cleared": cleared, "readers": rows}


def _encoder(store: EmbeddingStore, beginning: str) -> str:
    """The fingerprint that begins so.

    Raises:
        StoreError: none does, or several.
    """
    from llmgr_core.store import StoreError

    known = [one.fingerprint for one in store.encoders()]
    matching = [one for one in known if one.startswith(beginning)]
    if len(matching) != 1 or not beginning:
        names = ", ".join(one[:12] for one in known) or "none"
        raise StoreError(f"{len(matching)} encoders of {store.path} begin with {beginning!r}", f"encoders in it: {names}")
    return matching[0]


def _show(facts: dict[str, Any], as_json: bool) -> None:
    if as_json or not sys.stdout.isatty():
        click.echo(json.dumps(facts, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in facts.items():
        lines = [str(one) if not isinstance(one, dict) else _line(one) for one in value] if isinstance(value, list) else []
        shown = lines[:SHOWN] + ([f"... and {len(lines) - SHOWN} more (--json has all)"] if len(lines) > SHOWN else [])
        if isinstance(value, dict):
            shown = [_line(value)]
        elif not isinstance(value, list):
            shown = [f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)]
        table.add_row(name.replace("_", " "), Text("\n".join(shown) or "none"))
    Console(highlight=False).print(table)


def _line(fields: dict[str, Any]) -> str:
    return "  ".join(f"{name} {value}" for name, value in fields.items()) or "none"
