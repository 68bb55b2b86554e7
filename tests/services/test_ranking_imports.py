"""A ranking host has no transformers, peft or pyarrow; nor does a server on the CPU wait for torch when it starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# torch alone takes longer to import than all else that such a server does before it serves 12,000 items.
HEAVY = ("torch", "transformers", "peft", "deepspeed", "pyarrow", "tokenizers", "bs4", "trainer")


def modules_after(code: str) -> set[str]:
    program = f"import sys\n{code}\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_ranking_server_imports_nothing_of_the_language_model():
    loaded = modules_after("import services.ranking.server, services.ranking.workers, services.ranking.process")
    assert loaded.isdisjoint(HEAVY)


def test_the_client_imports_no_more():
    assert modules_after("import services.client").isdisjoint(HEAVY)


def test_the_commands_import_neither_grpc_nor_numpy_until_they_run():
    loaded = modules_after("import services.commands.serve, services.commands.rank, llmgr_core.commands.bench")
    assert loaded.isdisjoint((*HEAVY, "grpc", "numpy"))


def test_a_ranking_server_that_has_loaded_and_ranked_has_imported_no_more(catalogue):
    loaded = modules_after(
        "from pathlib import Path\n"
        "from services.ranking.live_ranker import LiveRanker\n"
        f"LiveRanker.open(Path({str(catalogue.bundle)!r}), Path({str(catalogue.store)!r}))"
    )
    assert loaded.isdisjoint(HEAVY)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
def test_importing_the_ranking_server_starts_no_thread():
    """Workers are forked from a process that has imported it: a thread, with the locks it holds, would be lost there."""
    count = "import os, services.ranking.server\nassert len(os.listdir('/proc/self/task')) == 1, 'it has threads'"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", count], check=True, env=environment)
