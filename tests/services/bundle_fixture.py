"""A small catalogue to serve: a bundle of random weights through the real writer, and a store with vectors of an engine that
exists only by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llmgr_core.bundle import EngineReference
from llmgr_core.settings.encoder import EncoderSettings
from llmgr_core.settings.serve import ServeSettings
from llmgr_core.store import EmbeddedText, Encoder, Put, StoreWriter, Written
from services.ranking.synthetic_bundle import SyntheticBundle

FINGERPRINT = "f" * 64
OTHER_FINGERPRINT = "0" * 64
DIMENSION = 16
ITEMS = 120
ENCODER = EncoderSettings(dimension=16)


def vector_of(seed: int) -> np.ndarray:
    """A text vector, float32 [DIMENSION], that depends on the seed alone."""
    return np.random.default_rng(seed).normal(size=DIMENSION).astype(np.float32)


def put(writer: StoreWriter, item_id: str, seed: int, fingerprint: str = FINGERPRINT) -> Written:
    """Insert an item whose text vector follows from the seed."""
    return writer.put(item_id, b"{}", EmbeddedText.of(fingerprint, f"text {seed}", vector_of(seed)))


@dataclass(frozen=True)
class Catalogue:
    """Where bundle and store stand."""

    bundle: Path
    store: Path

    @property
    def item_ids(self) -> list[str]:
        return [f"item-{index}" for index in range(ITEMS)]

    def writer(self) -> StoreWriter:
        return StoreWriter.open(self.store)

    def write_bundle(self, **changes: object) -> None:
        settings = {"num_items": ITEMS, "text_dimension": DIMENSION, "fingerprint": FINGERPRINT, "encoder": ENCODER}
        SyntheticBundle(**(settings | changes)).write(self.bundle)  # type: ignore[arg-type]

    def damage_weights(self) -> None:
        """Change a byte of the bundle's weights."""
        weights = self.bundle / "ranker.safetensors"
        raw = bytearray(weights.read_bytes())
        raw[-5] ^= 1
        weights.write_bytes(raw)

    def write_store(self, fingerprint: str = FINGERPRINT) -> None:
        with self.writer() as writer:
            writer.activate(Encoder(fingerprint, DIMENSION, "no model"))
            texts = [EmbeddedText.of(fingerprint, f"text {index}", vector_of(index)) for index in range(ITEMS)]
            writer.write([Put(item_id, b"{}", (text,)) for item_id, text in zip(self.item_ids, texts, strict=True)])


def make_catalogue(directory: Path) -> Catalogue:
    """Bundle and full store below a directory."""
    catalogue = Catalogue(directory / "bundle", directory / "store")
    catalogue.write_bundle()
    catalogue.write_store()
    return catalogue


def make_live_catalogue(directory: Path, model: Path) -> Catalogue:
    """A bundle that stands on a real language model, and an empty store: what both servers start from."""
    from llmgr_core.data.item import Item
    from llmgr_core.engine import SemanticEngine
    from llmgr_core.settings.engine import EngineSettings
    from llmgr_core.settings.text import TextSettings
    from llmgr_core.text import TextCleaner

    settings = EngineSettings(model=str(model), device="cpu")
    engine = SemanticEngine.load(settings)
    cleaner = TextCleaner(TextSettings()).fit([Item("item-0", title="A lamp"), Item("item-1", title="A chair")])
    catalogue = Catalogue(directory / "bundle", directory / "store")
    reference = EngineReference(
        settings=settings.model_dump(),
        base_hash=engine.base_hash,
        adapter_hash="",
        fingerprint=engine.fingerprint(cleaner.digest),
        prompt_version="",
        hidden_size=engine.hidden_size,
    )
    SyntheticBundle(ITEMS, engine.hidden_size, reference.fingerprint, ENCODER).write(
        catalogue.bundle, cleaner_state=cleaner.state(), engine=reference
    )
    catalogue.writer().close()
    return catalogue


def free_port_settings(**changes: object) -> ServeSettings:
    """Free ports, no metrics page, a bundle that is looked at often, and no call shed because the machine is busy."""
    values = {"ranking_port": 0, "embedding_port": 0, "metrics_port": -1, "bundle_poll_s": 0.05, "drain_s": 2.0}
    values |= {"max_wait_ms": 60_000.0, "max_unread": 1000, "stuck_after_s": 60.0}
    return ServeSettings.model_validate(values | changes)
