"""No bit of the file flips unnoticed: it is refused, found, or meant nothing; and reading it never ends the process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("flip_bits.py")


def flip(directory, seed, count):
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(directory), str(seed), str(count)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)
    assert outcomes["silent"] == []
    assert outcomes["refused"] >= 14, "a transaction's number that is wrong loses the last group of inserts"
    assert outcomes["found"] > 0


def test_fault_flipped_bit_anywhere_is_never_silent(tmp_path):
    flip(tmp_path, 0, 45)


@pytest.mark.slow
def test_fault_flipped_bit_three_thousand_times(tmp_path):
    flip(tmp_path, 1, 3000)
