"""An encoder whose language model does what a test wants, and a server around it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from metrics_page import series, value
from patience import PATIENCE

from llmgr_core.data.item import Item
from llmgr_core.settings import Settings, load_settings
from llmgr_core.store.item_encoder import ItemEncoder
from services.client import EmbeddingClient
from services.client.calls import RetryPolicy
from services.embedding.background import serve_in_background
from services.embedding.server import Listening

FINGERPRINT = "d4" * 32
DIMENSIONS = 8


class PlainCleaner:
    """Joins title and description; "<br>" stands for markup that leaves no text."""

    def clean(self, item: Item) -> str | None:
        parts = [part.replace("<br>", "").strip() for part in (item.title, item.description) if part]
        return " ".join(part for part in parts if part) or None


class ControlledModel:
    """A language model that counts what it reads, and can be held or broken.

    Attributes:
        batches: texts of every forward.
        running: open while the model may read; clear it to hold the model.
        broken: texts that give NaN.
        raising: texts that make the model raise.
    """

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.running = threading.Event()
        self.running.set()
        self.entered = threading.Event()
        self.broken: set[str] = set()
        self.raising: set[str] = set()

    def embed_texts(self, texts: list[str]) -> np.ndarray:
        self.batches.append(list(texts))
        self.entered.set()
        assert self.running.wait(4 * PATIENCE)
        if self.raising & set(texts):
            raise RuntimeError(f"secret text: {texts}")
        return np.stack([self.vector(text) for text in texts])

    def vector(self, text: str) -> np.ndarray:
        if text in self.broken:
            return np.full(DIMENSIONS, np.nan, dtype=np.float32)
        seed = int.from_bytes(text.encode()[:8].ljust(8, b"-"), "little") + len(text)
        return np.random.default_rng(seed).normal(size=DIMENSIONS).astype(np.float32)

    @property
    def texts(self) -> list[str]:
        """Everything read, in order."""
        return [text for batch in self.batches for text in batch]


def encoder_around(model: ControlledModel, fingerprint: str = FINGERPRINT, name: str = "controlled") -> ItemEncoder:
    return ItemEncoder(PlainCleaner(), model, fingerprint, DIMENSIONS, name)


def settings_with(*overrides: str) -> Settings:
    """Free ports, no metrics page, a short drain, and what a test sets."""
    return load_settings(None, ["serve.embedding_port=0", "embed.metrics_port=-1", "serve.drain_s=2.0", *overrides])


@contextmanager
def client_of(listening: Listening) -> Iterator[EmbeddingClient]:
    """A client that never retries."""
    with EmbeddingClient(listening.address, timeout=PATIENCE, retry=RetryPolicy(attempts=1)) as client:
        yield client


@contextmanager
def embedding_service(
    store: Path, model: ControlledModel | None = None, *overrides: str
) -> Iterator[tuple[EmbeddingClient, ControlledModel]]:
    """A server in this process and a client of it."""
    with measured_service(store, model, *overrides) as (client, used, _):
        yield client, used


@contextmanager
def measured_service(
    store: Path, model: ControlledModel | None = None, *overrides: str
) -> Iterator[tuple[EmbeddingClient, ControlledModel, Callable[..., float]]]:
    """As embedding_service, with a function that reads a series of the server, for example ``measured("queued_texts")``."""
    model = model or ControlledModel()
    serving = serve_in_background(encoder_around(model), store, settings_with("embed.metrics_port=0", *overrides))
    with serving as listening, client_of(listening) as client:

        def measured(name: str, **labels: str) -> float:
            assert listening.metrics_port is not None
            return value(series(listening.metrics_port), f"llmgr_embedding_{name}", **labels)

        try:
            yield client, model, measured
        finally:
            model.running.set()
