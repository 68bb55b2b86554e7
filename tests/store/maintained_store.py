"""A small store that has been lived in, and ways to look at its bytes."""

import numpy as np

from llmgr_core.store import Delete, EmbeddedText, EmbeddingStore, Encoder, Put, StoreWriter, fingerprint_key, text_hash

OLD, NEW = "a1" * 32, "b2" * 32
D = 32


def embedded(text, fingerprint=OLD, dimensions=D):
    vector = np.random.default_rng(len(text) + sum(text.encode())).normal(size=dimensions)
    return EmbeddedText.of(fingerprint, text, vector)


def put(number, text=None, *fingerprints):
    text = text or f"text {number}"
    return Put(f"item-{number}", text.encode(), tuple(embedded(text, one) for one in fingerprints or (OLD,)))


def make_store(path):
    """Items 0 to 29: item 3 edited twice, item 4 deleted, item 5 under two encoders."""
    with StoreWriter.open(path) as store:
        store.activate(Encoder(OLD, D, "minilm"))
        store.write([put(number) for number in range(30)])
        store.write([put(3, "edited"), put(3, "edited again"), Delete("item-4"), put(5, None, OLD, NEW)])


def rows(path, *databases):
    """Every row of a store as bytes."""
    names = databases or ("vectors", "items", "changes")
    with EmbeddingStore.open(path) as store, store.transaction() as transaction:
        return {
            name: [(bytes(key), bytes(value)) for key, value in transaction.cursor(db=store.database(name))] for name in names
        }


def vector_key(text, fingerprint=OLD):
    return fingerprint_key(fingerprint) + text_hash(text)
