"""The contract: the .proto files, and the generated Python that must be theirs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from services.contract import embedding_service_pb2, item_pb2, ranking_service_pb2, timing_pb2, vector_pb2
from services.contract.generate import PROTO_ROOT, generate

CONTRACT = Path(embedding_service_pb2.__file__).parent
MODULES = [embedding_service_pb2, item_pb2, ranking_service_pb2, timing_pb2, vector_pb2]

# DESIGN names these; clients in the field rely on names and numbers.
SERVICES = {
    "EmbeddingService": ["EmbedItem", "EmbedItems", "GetItem", "DeleteItem", "WatchChanges", "GetInfo"],
    "RankingService": ["RankSession", "RankSessions", "GetInfo"],
}
FIELDS = {
    "EmbedItemRequest": {"item": 1, "return_vector": 2},
    "EmbedItemResponse": {"item_id": 1, "model_version": 2, "sequence": 3, "cached": 4, "vector": 5, "timing": 6},
    "RankSessionRequest": {
        "item_ids": 1,
        "top_k": 2,
        "candidate_ids": 3,
        "exclude_item_ids": 4,
        "include_seen": 5,
        "min_sequence": 6,
    },
    "RankSessionResponse": {
        "items": 1,
        "unknown_item_ids": 2,
        "model_version": 3,
        "sequence": 4,
        "fallback": 5,
        "timing": 6,
    },
    "ScoredItem": {"item_id": 1, "score": 2, "probability": 3},
    "Item": {"item_id": 1, "title": 2, "description": 3, "brand": 4, "categories": 5, "attributes": 6},
}


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    pytest.importorskip("grpc_tools")
    directory = tmp_path_factory.mktemp("contract")
    return directory, generate(directory)


def test_the_committed_modules_are_those_of_the_proto_files(generated):
    _, files = generated
    committed = {path.name for path in CONTRACT.iterdir() if "_pb2" in path.name}
    assert {path.name for path in files} == committed


def test_the_committed_modules_say_what_the_proto_files_say(generated):
    _, files = generated
    for path in files:
        assert meaning(path) == meaning(CONTRACT / path.name), f"{path.name}: run python -m services.contract.generate"


def meaning(path):
    """A generated module without what depends on the generator's version: guards, and how optional arguments are typed."""
    text = path.read_text(encoding="utf-8")
    if path.name.endswith("_pb2.py"):
        return re.findall(r"AddSerializedFile\(.*\)|^from \..*", text, flags=re.MULTILINE)
    if path.name.endswith("_pb2_grpc.py"):
        return re.findall(r"'/llmgr\.v1\..*'|^from \..*|_pb2\.\w+\.(?:FromString|SerializeToString)", text, flags=re.MULTILINE)
    return re.sub(r"_Optional\[bool\]", "bool", text)


def test_generated_modules_import_each_other_relatively():
    for path in CONTRACT.glob("*_pb2*"):
        assert not re.search(r"^(from|import) llmgr", path.read_text(encoding="utf-8"), flags=re.MULTILINE), path.name


def test_the_contract_needs_no_package_called_llmgr():
    program = "import sys; sys.modules['llmgr'] = None; import services.contract.ranking_service_pb2_grpc"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("service", SERVICES)
def test_services_and_methods_keep_their_names(service):
    module = embedding_service_pb2 if service == "EmbeddingService" else ranking_service_pb2
    described = module.DESCRIPTOR.services_by_name[service]
    assert described.full_name == f"llmgr.v1.{service}"
    assert [method.name for method in described.methods] == SERVICES[service]


def test_streaming_methods_stream_the_way_they_should():
    proto = descriptor_pb2.ServiceDescriptorProto()
    embedding_service_pb2.DESCRIPTOR.services_by_name["EmbeddingService"].CopyToProto(proto)
    streams = {method.name: (method.client_streaming, method.server_streaming) for method in proto.method}
    assert streams.pop("EmbedItems") == (True, True)
    assert streams.pop("WatchChanges") == (False, True)
    assert set(streams.values()) == {(False, False)}


@pytest.mark.parametrize("message", FIELDS)
def test_messages_keep_their_fields_and_numbers(message):
    described = next(one.DESCRIPTOR.message_types_by_name[message] for one in MODULES if message in dir(one))
    assert {field.name: field.number for field in described.fields} == FIELDS[message]


def test_presence_is_told_apart_where_it_matters():
    request = ranking_service_pb2.RankSessionRequest()
    assert not request.HasField("include_seen")
    request.include_seen = False
    assert request.HasField("include_seen")
    assert not ranking_service_pb2.ScoredItem().HasField("probability")


def test_the_proto_files_pass_buf_lint():
    buf = Path(sys.executable).with_name("buf")
    if not buf.is_file():
        pytest.skip("no buf: pip install buf-bin")
    done = subprocess.run([str(buf), "lint"], cwd=PROTO_ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    formatted = subprocess.run([str(buf), "format", "--diff"], cwd=PROTO_ROOT, capture_output=True, text=True, check=True)
    assert formatted.stdout == ""
