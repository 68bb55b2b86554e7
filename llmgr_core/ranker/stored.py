"""The files of a trained ranker, shared by the ranker's own artefact and the bundle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from llmgr_core.errors import ArtefactError
from llmgr_core.ranker.folded_transform import FoldedTransform
from llmgr_core.ranker.parts import RankerParts
from llmgr_core.ranker.scoring import ScoringSettings
from llmgr_core.ranker.session_vector import build_session_vector
from llmgr_core.ranker.tail_text import takes_text
from llmgr_core.ranker.text_lenders import TextLenders
from llmgr_core.settings.encoder import EncoderSettings
from llmgr_core.transitions import TransitionGraph

WEIGHTS_NAME = "ranker.safetensors"
SETTINGS_NAME = "ranker.json"
TRANSFORM_NAME = "item_transform.safetensors"
TRANSITIONS_NAME = "transitions.safetensors"
RANKER_FILES = (WEIGHTS_NAME, SETTINGS_NAME, TRANSFORM_NAME, TRANSITIONS_NAME)

Variant = Literal["fused", "id-only", "frozen-text"]


class RankerDescription(BaseModel):
    """Contents of ``ranker.json``.

    Attributes:
        variant: "fused" (IDs and tuned text), "id-only", or "frozen-text" (IDs and text of the untuned engine).
        num_items: V.
        encoder: settings of encoder and logits.
        head_hidden: width of the head, 0 without one.
        text_dimension: D, 0 without text.
        fingerprint: encoder fingerprint of the text vectors it was trained with, "" without text.
        scoring: transition weight, temperature, default for seen items.
        id_prior: kappa; an item's ID vector counts n / (n + kappa), n its training clicks.
        text_below: items with so many training clicks have no text in their rows; 0: every item has.
        text_lenders: whether ``text_lenders.safetensors`` is part of it. A ranker from before there were any does not say so,
            and its new items borrow no transitions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    variant: Variant
    num_items: int
    encoder: EncoderSettings
    head_hidden: int
    text_dimension: int
    fingerprint: str
    scoring: ScoringSettings
    id_prior: float = 0.0
    text_below: int = 0
    text_lenders: bool = False


@dataclass(frozen=True)
class StoredRanker:
    """A trained ranker as plain arrays.

    Attributes:
        description: its settings.
        tensors: state of OnlineRanker by parameter name, float32; "id_table" is x_v as trained [V, d].
        has_id: bool [V], items with at least one training click.
        popularity: int64 [V], training clicks.
        transform: makes rows; None without text.
        transitions: pruned transition graph.
        lenders: of whom items without a training click borrow transitions; None where they have none.
    """

    description: RankerDescription
    tensors: dict[str, npt.NDArray[np.float32]]
    has_id: npt.NDArray[np.bool_]
    popularity: npt.NDArray[np.int64]
    transform: FoldedTransform | None
    transitions: TransitionGraph
    lenders: TextLenders | None = None

    @cached_property
    def id_vectors(self) -> npt.NDArray[np.float32]:
        """n_v / (n_v + kappa) x_v, float32 [V, d]: x_v as it counts beside text."""
        prior = self.description.id_prior
        if not prior:
            return self.tensors["id_table"]
        counted: npt.NDArray[np.float32] = (
            self.tensors["id_table"] * (self.popularity / (self.popularity + prior)).astype(np.float32)[:, None]
        )
        return counted

    @property
    def takes_text(self) -> npt.NDArray[np.bool_]:
        """bool [V], items whose rows have a text part where they have a text vector."""
        return takes_text(self.popularity, self.description.text_below)

    def write(self, directory: Path) -> None:
        """Write the ranker's files into an existing directory."""
        model = {f"model.{name}": np.ascontiguousarray(tensor).reshape(tensor.shape) for name, tensor in self.tensors.items()}
        save_file(
            {**model, "has_id": self.has_id.astype(np.uint8), "popularity": self.popularity.astype(np.int64)},
            directory / WEIGHTS_NAME,
        )
        if self.transform is not None:
            save_file(
                {
                    "matrix": np.ascontiguousarray(self.transform.matrix),
                    "offset": self.transform.offset,
                    "text_only_scale": np.array([self.transform.text_only_scale], dtype=np.float64),
                },
                directory / TRANSFORM_NAME,
            )
        self.transitions.save(directory)
        if self.lenders is not None:
            self.lenders.write(directory)
        description = self.description.model_copy(update={"text_lenders": self.lenders is not None})
        text = json.dumps(description.model_dump(), indent=2)
        (directory / SETTINGS_NAME).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, directory: Path) -> StoredRanker:
        """Read what ``write`` wrote.

        Raises:
            ArtefactError: a file is missing or damaged, or the files do not fit each other.
        """
        try:
            description = RankerDescription.model_validate_json((directory / SETTINGS_NAME).read_text(encoding="utf-8"))
            tensors = load_file(directory / WEIGHTS_NAME)
            has_id, popularity = tensors.pop("has_id").astype(np.bool_), tensors.pop("popularity")
            model = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
            transform = _read_transform(directory) if description.text_dimension else None
            lenders = TextLenders.read(directory) if description.text_lenders else None
        except (OSError, ValueError, KeyError, ValidationError, SafetensorError) as error:
            raise ArtefactError(f"{directory} holds no usable ranker: {error}", "run `llmgr distil` again") from None
        stored = cls(description, model, has_id, popularity, transform, TransitionGraph.load(directory), lenders)
        stored._require_consistent(directory)
        return stored

    def parts(self, version: str, item_ids: Sequence[str]) -> RankerParts:
        """What a RankerRuntime is built from."""
        encoder = self.description.encoder
        return RankerParts(
            version=version,
            item_ids=item_ids,
            id_vectors=self.id_vectors,
            has_id=self.has_id,
            popularity=self.popularity,
            transform=self.transform,
            session_vector=build_session_vector(encoder, self.tensors),
            max_clicks=encoder.max_clicks,
            cosine=encoder.logits == "cosine",
            logit_scale=float(np.exp(self.tensors["logits.log_scale"])),
            transitions=self.transitions,
            scoring=self.description.scoring,
            text_below=self.description.text_below,
            lenders=self.lenders,
        )

    def _require_consistent(self, directory: Path) -> None:
        items, width = self.description.num_items, self.description.encoder.dimension
        shapes = [self.id_vectors.shape == (items, width), self.has_id.shape == (items,), self.popularity.shape == (items,)]
        shapes.append(self.transitions.num_items == items)
        if self.transform is not None:
            shapes.append(self.transform.matrix.shape == (self.description.text_dimension, width))
        if self.lenders is not None:
            shapes.append(self.lenders.fits(items, self.description.text_dimension))
        if not all(shapes):
            raise ArtefactError(f"the files of the ranker in {directory} do not fit each other", "run `llmgr distil` again")


def _read_transform(directory: Path) -> FoldedTransform:
    tensors = load_file(directory / TRANSFORM_NAME)
    return FoldedTransform(tensors["matrix"], tensors["offset"], float(tensors["text_only_scale"][0]))
