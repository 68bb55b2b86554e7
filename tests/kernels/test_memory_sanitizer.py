"""No kernel reads or writes outside its buffers, races in shared memory, or waits at a barrier that others pass.

compute-sanitizer comes with the CUDA toolkit. By hand:

    PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck --error-exitcode 9 \\
        python -m kernels.benchmark --tiny --check-only --no-compile --device cuda --sessions even
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
import torch

FOUND = 9


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "synccheck"])
def test_the_sanitizer_finds_nothing(tool: str, dtype: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if shutil.which("compute-sanitizer") is None:
        pytest.skip("no compute-sanitizer: it comes with the CUDA toolkit")
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", str(FOUND), sys.executable, "-m", "kernels.benchmark"]
    command += ["--tiny", "--check-only", "--no-compile", "--device", "cuda", "--dtype", dtype, "--sessions", "even"]
    # Without torch's cache every tensor is an allocation of its own, and the byte behind it belongs to nobody.
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != FOUND, done.stdout[-8000:]
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
