"""Every kernel compiles for GPUs that are not here, without spills and within their shared memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from launched_kernels import launched_kernels

from kernels.compilation import Compiled, all_configurations


def compile_in_own_process(*arguments: str) -> list[dict]:
    """The compiler runs where the interpreter has not taken its place."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "kernels.compilation", "--json", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    "arguments", [pytest.param((), id="representative"), pytest.param(("--all",), id="all", marks=pytest.mark.slow)]
)
def test_kernels_compile_for_ampere_and_hopper_without_spills(arguments: tuple[str, ...]) -> None:
    found = compile_in_own_process(*arguments)
    assert {one["target"] for one in found} == {80, 90}
    assert {one["name"]: one["problems"] for one in found if one["problems"]} == {}


def test_every_launched_kernel_has_configurations_one_of_them_compiled_by_make_test() -> None:
    listed = {configuration.kernel.__name__ for configuration in all_configurations()}
    representative = {configuration.kernel.__name__ for configuration in all_configurations() if configuration.representative}
    assert set(launched_kernels()) - listed == set(), "launched, but in no configurations.py"
    assert listed - representative == set()


def compiled(**changes: object) -> Compiled:
    values = {"registers": 100, "spilled_bytes": 0, "shared_bytes": 1000, "wgmma": True, "wgmma_expected": True, "seconds": 1.0}
    return Compiled(**{"name": "k", "target": 90, **values, **changes})  # type: ignore[arg-type]


def test_spills_shared_memory_and_a_missing_wgmma_are_problems() -> None:
    assert compiled().problems == []
    assert compiled(spilled_bytes=8).problems == ["spills 8 bytes"]
    assert "shared memory" in compiled(shared_bytes=228 << 10).problems[0]
    assert "shared memory" in compiled(shared_bytes=164 << 10, target=80).problems[0]
    assert compiled(wgmma=False).problems == ["has no wgmma"]
    assert compiled(wgmma=False, target=80).problems == []
