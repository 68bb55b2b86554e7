"""Reads a file of texts as an actor does, and dies of some: ``python deadly_texts.py FILE``; prints what it gave, as JSON."""

import json
import os
import sys
from pathlib import Path

import numpy as np

from llmgr_core.store.item_encoder import ItemEncoder
from services.embedding.ray_actor import read_file


class NoCleaner:
    def clean(self, item):
        raise AssertionError("texts are clean when they come here")


class DeadlyModel:
    def embed_texts(self, texts):
        if any("deadly" in text for text in texts):
            os._exit(9)
        return np.array([[len(text), len(texts)] for text in texts], dtype=np.float32)


if __name__ == "__main__":
    encoder = ItemEncoder(NoCleaner(), DeadlyModel(), "f" * 64, 2, "deadly")
    given = [(text, None if vector is None else vector.tolist()) for text, vector in read_file(encoder, Path(sys.argv[1]))]
    print(json.dumps(given))
