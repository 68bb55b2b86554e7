"""Loading the encoder that an embedding server or `llmgr embed` works with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmgr_core.artefacts import Artefact, open_artefact
from llmgr_core.errors import ArtefactError
from llmgr_core.run_directory import RunDirectory
from llmgr_core.settings.engine import EngineSettings
from llmgr_core.store.item_encoder import ItemEncoder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmgr_core.engine import SemanticEngine


def encoder_from_bundle(path: Path, host: EngineSettings) -> ItemEncoder:
    """The encoder whose vectors a bundle stands on.

    Args:
        path: directory of the bundle.
        host: its ``device`` and ``batch_tokens`` hold on this machine; everything else is the bundle's.

    Raises:
        LlmgrError: the bundle ranks by IDs alone or is damaged, or this machine's base model is another one.
    """
    from llmgr_core.bundle import Bundle
    from llmgr_core.engine import SemanticEngine

    bundle = Bundle.open(path)
    if bundle.engine is None:
        raise ArtefactError(f"{path} ranks by item IDs alone: it has no language model", "serve a bundle made with text")
    settings = EngineSettings.model_validate(bundle.engine.settings).model_copy(
        update={"device": host.device, "batch_tokens": host.batch_tokens}
    )
    encoder = _item_encoder(SemanticEngine.load(settings, bundle.adapter), bundle.cleaner_state)
    if encoder.fingerprint != bundle.engine.fingerprint:
        raise ArtefactError(
            f"this machine's engine is encoder {encoder.fingerprint[:12]}, the bundle at {path} stands on "
            f"{bundle.engine.fingerprint[:12]}",
            "fetch the very base model that the bundle was made with",
        )
    return encoder


def encoder_from_run(run: RunDirectory, engine: EngineSettings, *, untuned: bool = False) -> ItemEncoder:
    """The encoder of a run: its tuned language model, or the untuned one, with the data set's text cleaner.

    Args:
        run: holds dataset/ and, unless ``untuned``, tuned/.
        engine: of the untuned engine; of the tuned one, only ``device`` and ``batch_tokens`` are taken.
        untuned: the base model as it came, for the frozen-text control.

    Raises:
        LlmgrError: an artefact is missing or does not belong to the others, or the base model is missing.
    """
    from llmgr_core.data.dataset import Dataset
    from llmgr_core.engine import SemanticEngine

    dataset = open_artefact(run.dataset, "dataset")
    if untuned:
        loaded = SemanticEngine.load(engine)
    else:
        tuned: Artefact = open_artefact(run.tuned, "tuned")
        dataset.require_same_lineage(tuned)
        loaded = SemanticEngine.from_tuned(tuned, engine)
    return _item_encoder(loaded, Dataset.open(dataset).cleaner_state)


def _item_encoder(engine: SemanticEngine, cleaner_state: Mapping[str, Any]) -> ItemEncoder:
    from llmgr_core.text import TextCleaner

    cleaner = TextCleaner.from_state(dict(cleaner_state))
    # The first forward of a process is slow, and one of damaged weights fails: both here rather than in somebody's request.
    engine.embed_texts(["warm up"])
    return ItemEncoder(
        cleaner=cleaner,
        model=engine,
        fingerprint=engine.fingerprint(cleaner.digest),
        dimensions=engine.hidden_size,
        name=engine.settings.model,
        max_tokens=engine.max_tokens,
        batch_tokens=engine.settings.batch_tokens,
    )
