"""What experiments do to a ranker's inputs (section [distil.controls])."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from llmgr_core.sessions import Examples
from trainer.distil.student import TextVectors

# Training and evaluation must spoil the same thing in the same way, whatever the seed of the run.
CONTROL_SEED = 20_240


def controlled_text(text: TextVectors, control: Literal["own", "permuted", "random"]) -> TextVectors:
    """The text vectors as the control wants them; items without one stay without.

    Args:
        text: of the catalogue.
        control: see ControlSettings.text_vectors.
    """
    if control == "own":
        return text
    generator = np.random.default_rng(CONTROL_SEED)
    places = np.flatnonzero(text.present)
    vectors = text.vectors.copy()
    if control == "permuted":
        vectors[places] = text.vectors[generator.permutation(places)]
    else:
        own = text.vectors[places].astype(np.float32)
        drawn = generator.standard_normal(own.shape, dtype=np.float32)
        drawn *= np.linalg.norm(own, axis=1, keepdims=True) / np.linalg.norm(drawn, axis=1, keepdims=True)
        vectors[places] = drawn.astype(np.float16)
    return dataclasses.replace(text, vectors=vectors)


def shuffled_clicks(examples: Examples) -> Examples:
    """The same examples, the clicks of each prefix in a random order of their own; targets stay.

    Every order is drawn from a fixed seed, the number of the session and the length of the prefix: a prefix has the same one
    in every batch.
    """
    if not len(examples):
        return examples
    prefixes = examples.prefixes()
    lengths = prefixes.lengths
    orders = [
        np.random.default_rng([CONTROL_SEED, session, length]).permutation(length)
        for session, length in zip(examples.sessions.tolist(), lengths.tolist(), strict=True)
    ]
    items = prefixes.items[np.concatenate(orders) + np.repeat(prefixes.offsets[:-1], lengths)]
    return Examples(items, prefixes.offsets[:-1], prefixes.offsets[1:], examples.targets, examples.sessions)
