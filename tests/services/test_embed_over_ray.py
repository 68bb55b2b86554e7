"""`llmgr embed --ray`: the same store as without, whatever dies on the way."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from held_readers import HeldReaders

from llmgr_core.command_line.main import llmgr
from llmgr_core.errors import InputError, LlmgrError
from llmgr_core.store import EmbeddingStore
from services.embedding.ray_actor import Attempts
from services.embedding.ray_cluster import ActorPlan, Node
from services.embedding.ray_reading import write_texts

WORDS = "rose lavender hand cream nail lacquer beard trimmer electric shaver water tonic for dry skin with charger".split()  # noqa: SIM905
ITEMS = 700
HERE = Path(__file__).parent


def embed(*arguments):
    """In this process."""
    result = CliRunner().invoke(llmgr, ["embed", *map(str, arguments)], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return json.loads(result.stdout.splitlines()[-1])


def start(*arguments):
    """In a process of its own, as people do."""
    program = "import sys; sys.argv[0] = 'llmgr'; from llmgr_core.command_line.main import main; main()"
    command = [sys.executable, "-c", program, "embed", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process, seconds=1200):
    output, log = process.communicate(timeout=seconds)
    skip_where_ray_did_not_start(process, log)
    assert process.returncode == 0, log
    lines = output.splitlines()
    assert len(lines) == 1, "nothing but the result goes to standard output"
    return json.loads(lines[0]), log


def skip_where_ray_did_not_start(process, log):
    if process.returncode and "node timed out during startup" in log:
        pytest.skip("Ray gives itself 30 seconds to start, which this machine is too busy for")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run directory with a prepared data set: titles of one to forty words, some of them twice, one item without."""
    directory = tmp_path_factory.mktemp("run")
    data = directory / "data"
    data.mkdir()
    titles = [" ".join(WORDS[(n * n + step) % len(WORDS)] for step in range(1 + n % 40)) + f" {n % 650}" for n in range(ITEMS)]
    items = [{"item_id": f"i{number}", "title": title} for number, title in enumerate(titles)] + [{"item_id": "bare"}]
    sessions = [{"session_id": f"s{n}", "items": [f"i{(n + step) % ITEMS}" for step in range(5)]} for n in range(ITEMS)]
    (data / "items.jsonl").write_text("\n".join(map(json.dumps, items)))
    (data / "sessions.jsonl").write_text("\n".join(map(json.dumps, sessions)))
    arguments = ["prepare", "--run", str(directory), "--data", str(data), "--set", "data.workers=1"]
    assert CliRunner().invoke(llmgr, arguments, standalone_mode=False).exception is None
    return directory


def settings_for(model):
    return ["--untuned", "--set", f"engine.model={model}", "--set", "threads=1", "--set", "embed.commit_texts=64"]


@pytest.fixture(scope="module")
def tiny(run, tiny_language_model):
    """Settings, and the store of plain `llmgr embed` with what that printed."""
    return plainly_embedded(run, settings_for(tiny_language_model))


@pytest.fixture(scope="module")
def real(run, minilm):
    """As ``tiny``, with real weights."""
    return plainly_embedded(run, settings_for(minilm))


def plainly_embedded(run, settings):
    store = run / f"plain-{len(list(run.glob('plain-*')))}"
    return settings, embed("--run", run, "--store", store, *settings), contents(store)


def contents(path):
    with EmbeddingStore.open(path) as store:
        fingerprint = store.active_fingerprint()
        items = [(one.item_id, one.record, dict(one.texts), one.sequence) for one in store.items()]
        vectors, present = store.read_vectors([one[0] for one in items], fingerprint)
        assert present.all()
        return fingerprint, items, vectors.tolist(), list(store.changes()), store.counts()


def read_as_an_actor(file):
    return subprocess.run([sys.executable, "deadly_texts.py", file], cwd=HERE, capture_output=True, text=True, check=False)


def wait_for(process, condition):
    """Until something is true; skipped where Ray does not come up."""
    while not condition():
        if process.poll() is not None:
            _, log = process.communicate()
            skip_where_ray_did_not_start(process, log)
            raise AssertionError(log)
        time.sleep(0.02)


def vectors_in(path):
    """How many vectors a store has by now, be there one or not."""
    try:
        with EmbeddingStore.open(path, check_structure=False) as store:
            return store.counts()["vectors"]
    except LlmgrError:
        return 0


@pytest.mark.parametrize("model", ["tiny", pytest.param("real", marks=[pytest.mark.slow, pytest.mark.weights])])
def test_two_actors_leave_the_very_store_that_one_process_leaves(run, model, request, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    settings, printed, expected = request.getfixturevalue(model)
    monkeypatch.setenv("HOME", str(tmp_path))
    store = tmp_path / "store"
    outcome, log = finish(start("--run", run, "--store", store, "--ray", "--ray-actors", 2, *settings))
    assert contents(store) == expected
    for figure in ("items", "unchanged", "embedded", "shared", "without_text", "sequence", "fingerprint"):
        assert outcome[figure] == printed[figure], figure
    assert "embed on 2 actors" in log
    assert not list(run.glob("texts-*"))
    assert not (tmp_path / ".ray").exists(), "a token was written down"


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_stood_although_an_actor_dies_too(run, tiny, tmp_path):
    psutil = pytest.importorskip("psutil")
    pytest.importorskip("ray")
    settings, printed, expected = tiny
    store = tmp_path / "store"
    arguments = ["--run", run, "--store", store, "--ray", "--ray-actors", 2, *settings]
    held = HeldReaders(tmp_path / "held")
    process = held.start(4, *arguments)
    wait_for(process, lambda: vectors_in(store) and held.waiting())
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    held.let_go()
    psutil.wait_procs(children, timeout=600)
    before = vectors_in(store)
    assert 0 < before < printed["embedded"]

    held = HeldReaders(tmp_path / "held again")
    process = held.start(4, *arguments)
    wait_for(process, lambda: vectors_in(store) > before and held.waiting())
    os.kill(held.waiting()[0], signal.SIGKILL)
    held.let_go()
    outcome, _ = finish(process)
    assert outcome["embedded"] == printed["embedded"] - before
    # The part that the actor died of was read text by text, which is the same but for the last bits.
    fingerprint, items, vectors, _, counts = contents(store)
    assert (fingerprint, items, counts) == (expected[0], expected[1], expected[4])
    np.testing.assert_allclose(vectors, expected[2], rtol=1e-2, atol=2e-3)


@pytest.mark.slow
def test_a_node_that_cannot_load_the_encoder_says_so(run, tiny_language_model, tmp_path):
    """As where the base model is on the command's machine only."""
    pytest.importorskip("ray")
    model = tmp_path / "model"
    shutil.copytree(tiny_language_model, model)
    held = HeldReaders(tmp_path / "held")
    process = held.start("load", "--run", run, "--store", tmp_path / "store", "--ray", "--ray-actors", 1, *settings_for(model))
    wait_for(process, held.waiting)
    shutil.rmtree(model)
    held.let_go()
    _, log = process.communicate(timeout=1200)
    assert process.returncode == 2, log
    assert "Ray broke off" in log
    assert "Every node needs" in log
    assert not list(run.glob("texts-*"))


def test_without_the_package_the_way_out_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(LlmgrError, match="needs the package ray") as error:
        embed("--run", run, "--store", run / "none", "--untuned", "--ray")
    assert "pip install 'llmgr[ray]'" in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--ray", "127.0.0.1:1"], "no Ray cluster at '127.0.0.1:1'.*refused"),
        (["--ray", "ray://head:10001"], "neither auto nor HOST:PORT"),
        (["--ray", "head"], "neither auto nor HOST:PORT"),
        (["--ray-actors", "2"], "without --ray"),
        (["--ray", "--server", "127.0.0.1:1"], "language model of its own"),
    ],
)
def test_a_cluster_that_is_not_there_is_named_before_a_model_is_loaded(run, arguments, words):
    pytest.importorskip("ray")
    with pytest.raises(LlmgrError, match=words):
        embed("--run", run, "--store", run / "none", *arguments, "--set", "engine.model=/nowhere", "--untuned")


FOUR_GPUS = [Node(32.0, 2.0), Node(32.0, 2.0), Node(8.0)]


@pytest.mark.parametrize(
    ("nodes", "actors", "device", "threads", "plan"),
    [
        (FOUR_GPUS, None, "auto", 0, ActorPlan(4, "cuda", 1, 1.0, 0)),
        (FOUR_GPUS, 3, "cuda", 0, ActorPlan(3, "cuda", 1, 1.0, 0)),
        (FOUR_GPUS, None, "cpu", 0, ActorPlan(18, "cpu", 0, 4.0, 4)),
        ([Node(2.0)], None, "auto", 0, ActorPlan(1, "cpu", 0, 2.0, 2)),
        ([Node(2.0)], 2, "auto", 0, ActorPlan(2, "cpu", 0, 1.0, 1)),
        ([Node(2.0)], 4, "auto", 0, ActorPlan(4, "cpu", 0, 0.5, 1)),
        ([Node(16.0)], 2, "auto", 3, ActorPlan(2, "cpu", 0, 8.0, 3)),
        # Six CPUs each would leave no room for the second on any node.
        ([Node(4.0), Node(4.0), Node(4.0)], 2, "auto", 0, ActorPlan(2, "cpu", 0, 4.0, 4)),
        ([Node(0.0), Node(8.0)], None, "auto", 0, ActorPlan(2, "cpu", 0, 4.0, 4)),
    ],
)
def test_every_actor_gets_a_gpu_or_its_share_of_the_cpus(nodes, actors, device, threads, plan):
    assert ActorPlan.of(nodes, actors, device, threads) == plan


@pytest.mark.parametrize(
    ("nodes", "actors", "device", "words"),
    [
        (FOUR_GPUS, 5, "auto", "has 4"),
        ([Node(2.0)], None, "cuda", "no GPU"),
        (FOUR_GPUS, None, "cuda:1", "every actor has one"),
        ([Node(0.0)], None, "auto", "no CPU"),
    ],
)
def test_more_than_the_cluster_has_is_refused(nodes, actors, device, words):
    with pytest.raises(InputError, match=words):
        ActorPlan.of(nodes, actors, device, 0)


def test_a_text_that_kills_its_readers_costs_nothing_but_its_own_vector(tmp_path):
    parts = [["one", "two"], ["three", "a deadly text", "five"], ["six"], ["deadly as well"]]
    (file,), texts = write_texts(parts, 8, tmp_path)
    assert texts == 7
    deaths = 0
    while (done := read_as_an_actor(file)).returncode == 9 and deaths < 5:
        deaths += 1
    assert done.returncode == 0, done.stderr
    assert deaths == 4, "each of the two: once with its part, once alone"
    given = dict(json.loads(done.stdout))
    # The second number is how many texts were read together.
    read = {"one": [3, 2], "two": [3, 2], "three": [5, 1], "five": [4, 1], "six": [3, 1]}
    assert given == {**read, "a deadly text": None, "deadly as well": None}


def test_texts_are_read_again_as_they_were_where_a_reader_died_between_two_files(tmp_path):
    for _ in range(2):
        attempts = Attempts(tmp_path / "file.attempts")
        attempts.begin("0")
        attempts.begin("finished")
        attempts.close()
    assert not Attempts(tmp_path / "file.attempts").died_at("0")


def test_texts_come_back_from_their_files_in_parts_of_the_same_texts(tmp_path):
    import pyarrow.parquet as pq

    parts = [[f"ü {number} {step}" for step in range(1 + number)] for number in range(7)]
    files, texts = write_texts(iter(parts), 3, tmp_path)
    assert (len(files), texts) == (3, 28)
    assert [part for file in files for part in pq.read_table(file)["texts"].to_pylist()] == parts
    assert write_texts([], 3, tmp_path / "none") == ([], 0)
