"""How a serving process keeps Python's interpreter free for calls."""

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys

from services.server.interpreter import in_the_background, settle_interpreter


def test_work_in_the_background_starts_no_collection_and_gives_way_soon():
    seconds = sys.getswitchinterval()
    with in_the_background():
        assert not gc.isenabled()
        assert sys.getswitchinterval() <= 0.0001
    assert gc.isenabled()
    with contextlib.suppress(OSError), in_the_background():
        raise OSError("work that fails")
    assert gc.isenabled()
    assert sys.getswitchinterval() == seconds


def test_a_collection_that_somebody_turned_off_stays_off():
    gc.disable()
    try:
        with in_the_background():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_is_loaded_before_serving_is_never_walked_through_again():
    """In a process of its own, whose objects may be frozen."""
    program = (
        f"import gc; from services.server.interpreter import {settle_interpreter.__name__} as settle\n"
        "loaded = [[number] for number in range(100_000)]\n"
        "settle()\n"
        "assert gc.get_freeze_count() > 100_000\n"
        "assert len(gc.get_objects()) < 10_000\n"
        "assert gc.isenabled()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
