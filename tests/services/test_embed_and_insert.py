"""`llmgr embed` and `llmgr insert`, with real weights."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from embedding_fixture import client_of, settings_with

from llmgr_core.command_line.main import llmgr
from llmgr_core.data.item import Item
from llmgr_core.errors import LlmgrError
from llmgr_core.run_directory import RunDirectory
from llmgr_core.settings.engine import EngineSettings
from llmgr_core.store import EmbeddingStore, Encoder, StoreWriter
from services.client import ServiceError
from services.embedding.background import serve_in_background
from services.embedding.loading import encoder_from_run

pytestmark = pytest.mark.weights

TITLES = [
    "Rose hand cream 50 ml",
    "Lavender hand cream for dry skin",
    "Shimmer nail lacquer, red",
    "Beard trimmer with charger",
    "Electric shaver, three heads",
    "Rose water face tonic",
]


def llmgr_command(*arguments):
    result = CliRunner().invoke(llmgr, [str(one) for one in arguments], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def run(tmp_path_factory, minilm):
    """A run directory with a prepared data set of six items."""
    directory = tmp_path_factory.mktemp("run")
    data = directory / "data"
    data.mkdir()
    items = [{"item_id": f"i{number}", "title": title} for number, title in enumerate(TITLES)]
    sessions = [{"session_id": f"s{n}", "items": [f"i{(n + step) % 6}" for step in range(5)]} for n in range(12)]
    (data / "items.jsonl").write_text("\n".join(map(json.dumps, items)))
    (data / "sessions.jsonl").write_text("\n".join(map(json.dumps, sessions)))
    llmgr_command("prepare", "--run", directory, "--data", data, "--set", "data.workers=1")
    return directory


@pytest.fixture(scope="module")
def embedded(run):
    """What the first `llmgr embed --untuned` printed."""
    return llmgr_command("embed", "--run", run, "--untuned")[-1]


@pytest.fixture(scope="module")
def encoder(run):
    return encoder_from_run(RunDirectory(run), EngineSettings(), untuned=True)


@pytest.fixture(scope="module")
def service(run, embedded, encoder):
    """An embedding server over the run's store, with real weights."""
    with serve_in_background(encoder, run / "store", settings_with()) as listening, client_of(listening) as client:
        yield client


def test_embed_gives_every_item_its_vector_and_says_so(embedded, run):
    assert (embedded["items"], embedded["embedded"], embedded["without_text"]) == (6, 6, 0)
    assert len(embedded["fingerprint"]) == 64


def test_embed_again_has_nothing_to_do(embedded, run, encoder):
    again = llmgr_command("embed", "--run", run, "--untuned")[-1]
    assert (again["unchanged"], again["embedded"]) == (6, 0)
    with EmbeddingStore.open(run / "store") as store:
        assert store.active_fingerprint() == encoder.fingerprint
        vectors, present = store.read_vectors([f"i{n}" for n in range(6)], encoder.fingerprint)
    assert present.all()
    norm = vectors.astype(np.float32) / np.linalg.norm(vectors.astype(np.float32), axis=1, keepdims=True)
    similarity = norm @ norm.T
    # Real weights: creams are near creams, shavers near trimmers.
    assert similarity[0, 1] > similarity[0, 3]
    assert similarity[3, 4] > similarity[3, 2]


def test_embed_without_a_tuned_model_says_what_to_run(run):
    with pytest.raises(LlmgrError, match="no tuned at"):
        llmgr_command("embed", "--run", run, "--store", run / "elsewhere")


def test_the_server_gives_the_vector_that_the_step_gave(service, encoder):
    text = encoder.cleaner.clean(Item("x", title=TITLES[0]))
    reply = service.embed(Item("copy", title=TITLES[0]), return_vector=True)
    alone = encoder.model.embed_texts([text])[0]
    assert reply.cached
    np.testing.assert_allclose(reply.vector, alone, rtol=1e-2, atol=2e-3)
    assert service.embed(Item("i0", title=TITLES[0])).sequence == 1


def test_a_new_text_runs_the_model_once_and_is_what_the_model_says(service, encoder):
    item = Item("fresh", title="Argan oil shampoo")
    reply = service.embed(item, return_vector=True)
    assert not reply.cached
    assert reply.timing.model_ms > 0
    alone = encoder.model.embed_texts([encoder.cleaner.clean(item)])[0]
    np.testing.assert_allclose(reply.vector, alone, rtol=1e-2, atol=2e-3)
    assert service.embed(item).cached


def test_embed_goes_through_a_server_that_holds_the_store(service, run):
    service.delete("i5")
    outcome = llmgr_command("embed", "--run", run, "--untuned")[-1]
    assert outcome["server"] == service.address
    assert (outcome["unchanged"], outcome["embedded"]) == (6, 0)
    forced = llmgr_command("embed", "--run", run, "--untuned", "--force")[-1]
    assert (forced["embedded"], forced["shared"]) == (0, 6)
    assert service.get("i5").item.title == TITLES[5]


def test_embed_refuses_a_server_of_another_encoder(service, run):
    with pytest.raises(LlmgrError, match="serves encoder"):
        llmgr_command("embed", "--run", run, "--untuned", "--set", "engine.max_tokens=16")


def test_insert_takes_an_item_from_options(service):
    done = llmgr_command(
        "insert", "B00X", "--address", service.address, "--title", "Rose soap", "--brand", "Acme",
        "--category", "Beauty > Soap", "--attribute", "colour=pink",
    )  # fmt: skip
    assert (done[0]["item_id"], done[0]["cached"]) == ("B00X", False)
    assert service.get("B00X").item == Item(
        "B00X", title="Rose soap", brand="Acme", categories=(("Beauty", "Soap"),), attributes={"colour": "pink"}
    )
    deleted = llmgr_command("insert", "B00X", "--address", service.address, "--delete")
    assert deleted[0]["deleted"]
    with pytest.raises(ServiceError, match="NOT_FOUND"):
        service.get("B00X")


def test_insert_takes_json_lines_and_names_the_items_that_were_refused(service, tmp_path):
    path = tmp_path / "new.jsonl"
    lines = [
        {"item_id": "n1", "title": "Mint soap", "category": [["Beauty"]]},
        {"item_id": "n2"},
        {"item_id": "n3", "title": "x"},
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    result = CliRunner().invoke(llmgr, ["insert", "--address", service.address, "--file", str(path)], standalone_mode=False)
    assert result.exit_code == 1
    # The server's own log goes to standard output too where nobody has set it up, as in a test.
    lines = [line for line in result.stdout.splitlines() if line.startswith("{")]
    outcomes = {one["item_id"]: one for one in map(json.loads, lines)}
    assert set(outcomes) == {"n1", "n2", "n3"}
    assert outcomes["n2"]["code"] == "INVALID_ARGUMENT"
    assert service.get("n3").item.title == "x"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("[1]", "JSON object"),
        ("{", "no JSON"),
        ('{"title": "x"}', "item_id"),
        ('{"item_id": "a", "tittle": "x"}', "'tittle'"),
        ('{"item_id": "a", "title": 3}', "title is 3"),
        ('{"item_id": "a", "categories": ["x"]}', "categories"),
        ('{"item_id": "a", "attributes": {"x": 1}}', "attributes"),
    ],
)
def test_insert_names_the_line_that_is_no_item(service, tmp_path, line, words):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"item_id": "good", "title": "fine"}\n' + line)
    with pytest.raises(LlmgrError, match=f"bad.jsonl:2: .*{words}"):
        llmgr_command("insert", "--address", service.address, "--file", path)


def test_the_server_refuses_a_store_of_another_encoder(tmp_path, encoder):
    with StoreWriter.open(tmp_path) as store:
        store.activate(Encoder("0" * 64, encoder.dimensions, "other"))
    with pytest.raises(LlmgrError, match="llmgr embed"), serve_in_background(encoder, tmp_path, settings_with()):
        pass
