"""Python's interpreter in a process that answers: one thread or one collection must not hold it for long."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# A thread that only has to refuse a call must not wait the usual 5 ms for the interpreter.
SWITCH_SECONDS = 0.0005
BACKGROUND_SWITCH_SECONDS = 0.00005


def settle_interpreter() -> None:
    """Short turns for threads, and no collection walks through what is loaded by now: modules, settings, the ranker.

    For a process of its own, once everything is loaded and before it says that it serves. A full collection over all that takes
    some 100 ms, in which nothing is answered.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()


@contextmanager
def no_collections() -> Iterator[None]:
    """Work that makes many objects to keep: collections would walk through them again and again, and find nothing."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@contextmanager
def in_the_background() -> Iterator[None]:
    """Work that makes many objects, beside calls: it holds the interpreter for a moment only whenever one wants it back, and
    starts no collection.
    """
    seconds = sys.getswitchinterval()
    sys.setswitchinterval(min(seconds, BACKGROUND_SWITCH_SECONDS))
    try:
        with no_collections():
            yield
    finally:
        sys.setswitchinterval(seconds)
