"""``llmgr embed``: the text vectors of the catalogue."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmgr_core.command_line.step import Step, step_command
from llmgr_core.errors import InputError, LlmgrError
from services.commands.connecting import client_security, security_options

if TYPE_CHECKING:
    from llmgr_core.data.dataset import Dataset
    from llmgr_core.data.item import Item
    from llmgr_core.store import StoreWriter
    from llmgr_core.store.item_encoder import ItemEncoder
    from llmgr_core.store.staleness import StaleAfter
    from services.client import ClientSecurity
    from services.embedding.ray_cluster import ActorPlan


@step_command("embed")
@click.option("--untuned", is_flag=True, help="Use the base model as it came, beside the tuned one (frozen-text control).")
@click.option("--store", "store_path", type=click.Path(path_type=Path), help="Embedding store; by default the run's own.")
@click.option(
    "--below",
    type=click.IntRange(min=1),
    metavar="CLICKS",
    help="Only items with fewer training clicks than this, new ones among them (see distil.text_below).",
)
@click.option(
    "--stale-after",
    metavar="AGE",
    help="Leave items alone whose vector, of whichever model, is younger than AGE (12h, 7d, 2w), or that fewer than AGE (2) "
    "models came after.",
)
@click.option(
    "--ray",
    "ray_address",
    is_flag=False,
    flag_value="local",
    metavar="[ADDRESS]",
    help="Read the texts on a Ray cluster: auto for the one this machine is a node of, or HOST:PORT of its head. Without "
    "ADDRESS, start Ray on this machine, for its GPUs. Needs the extra `ray`.",
)
@click.option(
    "--ray-actors",
    type=click.IntRange(min=1),
    metavar="N",
    help="Language models at a time; by default one for each GPU, or one for every four CPUs where there are none.",
)
@click.option("--server", metavar="HOST:PORT", help="Insert through this embedding server instead of writing the store.")
@security_options
def command(
    step: Step,
    *,
    untuned: bool,
    store_path: Path | None,
    below: int | None,
    stale_after: str | None,
    ray_address: str | None,
    ray_actors: int | None,
    server: str | None,
    **security: Path | None,
) -> None:
    """Give every item its text vector in the store, with the tuned language model.

    Reads RUN/dataset and RUN/tuned, writes RUN/store. Texts that have a vector are skipped, so that a run that was cut off goes
    on where it stood. Items that were edited or deleted in the store since stay as they are, unless --force is given. While an
    embedding server holds the store, items go through it.

    \b
    llmgr embed --run RUN --below 10          # text for rarely clicked items only
    llmgr embed --run RUN --stale-after 7d    # for a schedule: a newly tuned model takes over week-old vectors
    llmgr embed --run RUN --ray               # every GPU of this machine; --ray auto for those of a cluster
    """
    from llmgr_core.artefacts import open_artefact
    from llmgr_core.data.dataset import Dataset
    from llmgr_core.store import StoreLockedError, StoreWriter
    from llmgr_core.store.staleness import StaleAfter
    from services.embedding.loading import encoder_from_run

    if ray_actors is not None and ray_address is None:
        raise InputError("--ray-actors is given without --ray", "add --ray, or leave --ray-actors out")
    dataset = Dataset.open(open_artefact(step.run.dataset, "dataset"))
    path = store_path or step.run.store
    limit = None if stale_after is None else StaleAfter.parse(stale_after)
    often = (
        frozenset() if below is None else frozenset(dataset.item_ids[v] for v in (dataset.train_counts >= below).nonzero()[0])
    )
    writer: StoreWriter | None = None
    if server is None:
        try:
            # Before the language model is loaded: a store in use is a reason not to.
            writer = StoreWriter.open(path)
        except StoreLockedError as locked:
            if locked.address is None:
                raise
            server = locked.address
    if server is not None and limit is not None:
        raise InputError(
            f"items go through the embedding server at {server}, which embeds for one model only",
            "stop it, run `llmgr embed --stale-after` again, then start it with the new bundle",
        )
    if server is not None and ray_address is not None:
        raise InputError(
            f"items go through the embedding server at {server}, which has a language model of its own",
            "stop it, run `llmgr embed --ray` again, then start it; or leave --ray out",
        )
    with ExitStack() as stack:
        if writer is not None:
            stack.callback(writer.close)
        if step.settings.threads:
            import torch

            torch.set_num_threads(step.settings.threads)
        engine, plan = step.settings.engine, None
        if ray_address is not None:
            from services.embedding.ray_cluster import ActorPlan, ray_cluster

            plan = ActorPlan.of(stack.enter_context(ray_cluster(ray_address)), ray_actors, engine.device, step.settings.threads)
            # Here it only tells who it is; GPUs are for the actors.
            engine = engine.model_copy(update={"device": "cpu"})
        encoder = encoder_from_run(step.run, engine, untuned=untuned)
        if writer is not None:
            facts = _embed_into_store(step, dataset, writer, encoder, often, limit, plan, untuned=untuned)
        else:
            assert server is not None
            facts = _embed_through_server(step, dataset, path, encoder, server, client_security(security), often)
    click.echo(json.dumps({"store": str(path), "fingerprint": encoder.fingerprint, "engine": encoder.name, **facts}))


def _embed_into_store(
    step: Step,
    dataset: Dataset,
    store: StoreWriter,
    encoder: ItemEncoder,
    leave_out: frozenset[str],
    limit: StaleAfter | None,
    plan: ActorPlan | None,
    *,
    untuned: bool,
) -> dict[str, Any]:
    from llmgr_core.store import Encoder
    from llmgr_core.store.catalogue import CatalogueEmbedding
    from llmgr_core.store.staleness import Staleness

    staleness = None if limit is None else Staleness(store, encoder.fingerprint, limit)

    def embedding(encoder: ItemEncoder) -> CatalogueEmbedding:
        return CatalogueEmbedding(
            encoder,
            store,
            step.settings.embed.commit_texts,
            step.reporter,
            overwrite=step.force,
            leave_out=leave_out,
            staleness=staleness,
        )

    if plan is None:
        report = embedding(encoder).run(_items_with_texts(dataset), dataset.num_items)
    else:
        from services.embedding.ray_reading import EncoderWithoutModel, RayReading

        started = time.monotonic()
        encoder = EncoderWithoutModel.of(encoder)
        reading = RayReading(step.run, step.settings, encoder, plan, step.reporter, untuned=untuned)
        survey = embedding(encoder)
        new_texts = survey.new_texts(_items_with_texts(dataset), dataset.num_items)
        read = reading.read(new_texts, dataset.num_items, store, survey.lost)
        report = read.added_to(embedding(encoder).run(_items_with_texts(dataset), dataset.num_items))
        report.seconds = time.monotonic() - started
    # The control's vectors stand beside the tuned ones and are served only where there are no others. A model that has not
    # taken over every item is not served yet.
    if store.active_fingerprint() is None or not (untuned or report.young):
        store.activate(Encoder(encoder.fingerprint, encoder.dimensions, encoder.name))
    seconds = max(report.seconds, 1e-9)
    return {**asdict(report), "texts_per_s": round(report.embedded / seconds, 1), "sequence": store.sequence()}


def _embed_through_server(
    step: Step,
    dataset: Dataset,
    store_path: Path,
    encoder: ItemEncoder,
    server: str,
    security: ClientSecurity,
    leave_out: frozenset[str],
) -> dict[str, Any]:
    from llmgr_core.store import EmbeddingStore
    from services.client import EmbeddingClient, RejectedItem

    started = time.monotonic()
    items, cached, rejected, without_text, sequence = 0, 0, [], 0, 0
    with EmbeddingClient(server, security=security) as client:
        info = client.info()
        if info.model_version != encoder.fingerprint:
            raise LlmgrError(
                f"the embedding server at {server} serves encoder {info.model_version[:12]} ({info.engine}), "
                f"this run's is {encoder.fingerprint[:12]} ({encoder.name})",
                "stop that server, run `llmgr embed`, then start the server with the new bundle",
            )
        known: set[str] = set()
        if not step.force and store_path.is_dir():
            with EmbeddingStore.open(store_path) as store:
                if store.epoch == info.store_epoch:
                    known = {one for one in dataset.item_ids if store.get_item(one) is not None}
        passed = known | leave_out
        with_text = [item for item, text in _items_with_texts(dataset) if text is not None and item.item_id not in passed]
        without_text = sum(text is None for text in dataset.texts)
        with step.reporter.bar("embed", len(with_text)) as advance:
            for outcome in client.embed_many(with_text):
                if isinstance(outcome, RejectedItem):
                    rejected.append(outcome)
                else:
                    items, cached, sequence = items + 1, cached + outcome.cached, max(sequence, outcome.sequence)
                advance(1, items_per_s=(items + len(rejected)) / max(time.monotonic() - started, 1e-9))
    if rejected:
        first = rejected[0]
        raise LlmgrError(
            f"the server refused {len(rejected)} items, the first {first.item_id!r}: {first.code} {first.message}",
            "the other items are stored; run the command again to go on",
        )
    return {
        "server": server,
        "items": dataset.num_items,
        "unchanged": len(known - leave_out),
        "left_out": len(leave_out),
        "embedded": items - cached,
        "shared": cached,
        "without_text": without_text,
        "seconds": time.monotonic() - started,
        "sequence": sequence,
    }


def _items_with_texts(dataset: Dataset) -> Iterator[tuple[Item, str | None]]:
    from llmgr_core.data.text_pass import read_items, read_texts

    files = dataset.artefact
    return zip(read_items(files.file("items.parquet")), read_texts(files.file("texts.parquet")), strict=True)
