"""The semantic engine: item text in, text vector out."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from llmgr_core.artefacts import Artefact
from llmgr_core.artefacts.manifest import hash_file, hash_value
from llmgr_core.device import choose_device
from llmgr_core.engine.adapter import ADAPTER_CONFIG, ADAPTER_DIRECTORY, ADAPTER_WEIGHTS, attach_adapter
from llmgr_core.engine.engine_reference import EngineReference
from llmgr_core.engine.language_model import LanguageModel, load_language_model
from llmgr_core.engine.model_source import find_model
from llmgr_core.engine.pooling import Pooling, pool
from llmgr_core.engine.prompts import ITEM_TEXT_BEFORE_CAUSAL, PROMPT_VERSION
from llmgr_core.engine.token_batches import pad_right, token_budget_batches
from llmgr_core.engine.weight_hash import hash_model
from llmgr_core.errors import InputError
from llmgr_core.settings.engine import EngineSettings


class SemanticEngine:
    """A language model, with or without a tuned adapter, that turns item texts into vectors e_v.

    One forward pass runs at a time; threads may share an engine.

    Attributes:
        settings: what it was loaded with.
        language_model: the model itself.
        base_hash: SHA-256 of the base model's files.
        adapter_hash: SHA-256 of the adapter's weights, "" without one.
        adapter_directory: where the adapter came from, None without one.
        opening, closing: tokens of the item text prompt before and after the text.
        max_tokens: longest item text prompt.
    """

    def __init__(
        self,
        settings: EngineSettings,
        language_model: LanguageModel,
        base_hash: str,
        adapter_hash: str = "",
        adapter_directory: Path | None = None,
    ) -> None:
        self.settings = settings
        self.language_model = language_model
        self.base_hash = base_hash
        self.adapter_hash = adapter_hash
        self.adapter_directory = adapter_directory
        self._lock = threading.Lock()
        model = language_model
        before = model.tokens([ITEM_TEXT_BEFORE_CAUSAL], 64)[0] if model.is_causal else []
        self.opening, self.closing = [*model.opening, *before], list(model.closing)
        self.max_tokens = min(settings.max_tokens, model.max_positions)

    @classmethod
    def load(cls, settings: EngineSettings, adapter: Path | None = None) -> SemanticEngine:
        """Load the base model and, where given, a PEFT adapter directory; ready to embed, not to train.

        Raises:
            LlmgrError: the model or the adapter is missing, damaged, of a kind that cannot be used, or they do not fit.
        """
        directory = find_model(settings.model, settings.revision)
        base_hash = hash_model(directory)
        model = load_language_model(directory, settings.dtype, choose_device(settings.device, "engine.device"))
        if adapter is None:
            return cls(settings, model.eval(), base_hash)
        attach_adapter(model, adapter)
        return cls(settings, model.eval(), base_hash, hash_file(adapter / ADAPTER_WEIGHTS), adapter)

    @classmethod
    def from_tuned(cls, tuned: Artefact, host: EngineSettings | None = None) -> SemanticEngine:
        """The engine of a ``tuned`` artefact; see ``from_directory``."""
        return cls.from_directory(tuned.path, host)

    @classmethod
    def from_directory(cls, directory: Path, host: EngineSettings | None = None) -> SemanticEngine:
        """The engine that ``export_to`` wrote, for example into a bundle.

        Args:
            directory: holds engine.json and, for a tuned engine, adapter/.
            host: where given, its ``device`` and ``batch_tokens`` hold on this machine; nothing else may differ.

        Raises:
            ArtefactError: a file is missing or changed, another prompt version, or this machine's base model has other weights
                than the one the adapter was trained on.
        """
        reference = EngineReference.read(directory)
        settings = reference.settings
        if host is not None:
            settings = settings.model_copy(update={"device": host.device, "batch_tokens": host.batch_tokens})
        adapter = directory / ADAPTER_DIRECTORY if reference.adapter_hash else None
        engine = cls.load(settings, adapter)
        reference.require(base_hash=engine.base_hash, adapter_hash=engine.adapter_hash)
        return engine

    def export_to(self, directory: Path) -> None:
        """Write what another machine needs to load this very engine: engine.json, and adapter/ where it is tuned.

        The base model is named with the hash of its files, not copied.
        """
        EngineReference(self.settings, self.base_hash, self.adapter_hash, self.hidden_size).write(directory)
        if self.adapter_directory is not None:
            target = directory / ADAPTER_DIRECTORY
            target.mkdir(parents=True, exist_ok=True)
            for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG):
                shutil.copyfile(self.adapter_directory / name, target / name)

    @property
    def hidden_size(self) -> int:
        """D, numbers in a text vector."""
        return self.language_model.hidden_size

    @property
    def pooling(self) -> Pooling:
        return "last" if self.settings.pooling == "last" else "mean"

    def fingerprint(self, cleaner_digest: str) -> str:
        """Which encoder made a vector: two vectors may be compared only under one fingerprint.

        Args:
            cleaner_digest: digest of the text cleaner's state, since it decides what text reaches the model.

        Returns:
            64 hex digits over base model, adapter, prompt version, cleaner, pooling, number format and token limit.
        """
        return hash_value(
            {
                "base": self.base_hash,
                "adapter": self.adapter_hash,
                "prompt": PROMPT_VERSION,
                "cleaner": cleaner_digest,
                "pooling": self.pooling,
                "dtype": self.settings.dtype,
                "max_tokens": self.max_tokens,
            }
        )

    def item_tokens(self, texts: list[str]) -> list[list[int]]:
        """Token ids of the item text prompt of each text, special tokens included, at most ``max_tokens`` each.

        Raises:
            InputError: a text is blank, or no valid Unicode; the message names its position.
        """
        for position, text in enumerate(texts):
            if not text.strip():
                raise InputError(f"text {position} is empty", "an item without text has no text vector")
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as error:
                raise InputError(f"text {position} is not valid Unicode: {error.reason}", "clean the text first") from None
        room = self.max_tokens - len(self.opening) - len(self.closing)
        return [[*self.opening, *ids, *self.closing] for ids in self.language_model.tokens(texts, room)]

    def pooled_vectors(self, rows: list[list[int]]) -> torch.Tensor:
        """e_v with gradients: token rows of the item text prompt to fp32 [n, D]; one padded batch."""
        model = self.language_model
        ids, mask = pad_right(rows, padding=0)
        ids, mask = ids.to(model.device), mask.to(model.device)
        return pool(model(model.embed_tokens(ids), mask).float(), mask, self.pooling)

    def embed_texts(self, texts: list[str]) -> npt.NDArray[np.float32]:
        """Text vectors e_v: the pooled hidden state of the item text prompt of each text.

        The same text gives the same vector within 1e-3 relative, whatever it is batched with.

        Args:
            texts: cleaned item texts, none blank.

        Returns:
            float32 [n, D] in the order of ``texts``.

        Raises:
            InputError: a blank or invalid text, or one for which the model gives NaN or infinity; its position is named.
        """
        vectors = np.empty((len(texts), self.hidden_size), dtype=np.float32)
        for places, part in self.embed_batches(texts):
            vectors[places] = part
        return vectors

    def embed_batches(self, texts: list[str]) -> Iterator[tuple[list[int], npt.NDArray[np.float32]]]:
        """As embed_texts, batch by batch as they are ready: positions and their vectors float32 [b, D]."""
        rows = self.item_tokens(texts)
        for places in token_budget_batches([len(row) for row in rows], self.settings.batch_tokens):
            with self._lock, torch.inference_mode():
                part = self.pooled_vectors([rows[place] for place in places]).cpu().numpy()
            finite = np.isfinite(part).all(axis=1)
            if not finite.all():
                position = places[int(np.flatnonzero(~finite)[0])]
                raise InputError(
                    f"the model gave NaN or infinity for text {position} ({texts[position][:60]!r})",
                    "damaged weights or an overflow: fetch the model again, or set engine.dtype to fp32",
                )
            yield places, part
