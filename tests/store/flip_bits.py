"""Flips one bit of a store's file at a time and counts what comes of it: ``python flip_bits.py DIRECTORY SEED RANDOM_FLIPS``.

Prints JSON: "refused", "found" by verification, "nothing lost", and "silent", the places where a record changed unnoticed.
"""

import json
import logging
import random
import sys
from pathlib import Path

from maintained_store import OLD, embedded, make_store, put, rows

from llmgr_core.store import Delete, EmbeddingStore, Put, StoreError, StoreWriter
from llmgr_core.store.verification import verify_store

PAGE = 4096
# The transaction numbers of the two meta pages.
NUMBERS = (144, PAGE + 144)
DATABASES = ("vectors", "items", "changes", "meta")


def places(size, seed, count):
    """Bits to flip: every eighth of the transaction numbers, then anywhere, in the meta pages and in the heads of pages."""
    yield from ((start + byte, byte) for start in NUMBERS for byte in range(8))
    generator = random.Random(seed)
    for number in range(count):
        anywhere = generator.randrange(size)
        head = generator.randrange(2, size // PAGE) * PAGE + generator.randrange(64)
        yield (anywhere, generator.randrange(2 * PAGE), head)[number % 3], generator.randrange(8)


def kept(path):
    """What a store promises to keep: its records, and the vectors that an item has."""
    found = rows(path, *DATABASES)
    with EmbeddingStore.open(path) as store, store.transaction() as transaction:
        items = [store.item_in(transaction, item_id) for item_id in store.snapshot(OLD).item_ids]
        used = {encoder + text for item in items for encoder, text in item.texts.items()}
    return {**found, "vectors": [row for row in found["vectors"] if row[0] in used]}


def main():
    logging.disable(logging.CRITICAL)
    directory, seed, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    make_store(directory / "sound")
    with StoreWriter.open(directory / "sound") as store:
        store.write([put(number) for number in range(30, 300)])
        store.write([Put("long", b"x" * 3 * PAGE, (embedded("long"),)), Delete("item-40")])
    sound = kept(directory / "sound")
    content = (directory / "sound/data.mdb").read_bytes()
    damaged = directory / "damaged"
    damaged.mkdir()
    outcomes = {"refused": 0, "found": 0, "nothing lost": 0, "silent": []}
    for place, bit in places(len(content), seed, count):
        changed = bytearray(content)
        changed[place] ^= 1 << bit
        for file in damaged.iterdir():
            file.unlink()
        (damaged / "data.mdb").write_bytes(changed)
        try:
            if not verify_store(damaged).sound:
                outcomes["found"] += 1
            elif kept(damaged) == sound:
                outcomes["nothing lost"] += 1
            else:
                outcomes["silent"].append((place, bit))
            with EmbeddingStore.open(damaged) as store:
                store.snapshot(OLD)
        except StoreError:
            outcomes["refused"] += 1
    print(json.dumps(outcomes))


main()
