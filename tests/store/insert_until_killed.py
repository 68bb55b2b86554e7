"""A program that inserts without end and says on standard output what was acknowledged; killed by test_faults."""

import sys
from pathlib import Path

import numpy as np

from llmgr_core.store import Delete, EmbeddedText, Put, StoreWriter

FINGERPRINT = "c3" * 32


def main() -> None:
    generator = np.random.default_rng(int(sys.argv[2]))
    with StoreWriter.open(Path(sys.argv[1]), map_bytes=256 << 10) as store:
        print("ready", flush=True)
        while True:
            group = []
            for item in generator.integers(0, 500, size=int(generator.integers(1, 8))):
                if generator.random() < 0.1:
                    group.append(Delete(f"item-{item}"))
                    continue
                text = f"text {generator.integers(0, 10_000)}"
                vector = np.full(64, len(text) + int(text[5:]) % 7, dtype=np.float16)
                group.append(Put(f"item-{item}", text.encode(), (EmbeddedText.of(FINGERPRINT, text, vector),)))
            for operation, written in zip(group, store.write(group), strict=True):
                record = "-" if isinstance(operation, Delete) else operation.record.decode()
                print(f"{written.item_id}|{written.sequence}|{record}", flush=False)
            sys.stdout.flush()


main()
