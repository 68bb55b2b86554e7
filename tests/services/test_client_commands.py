"""`llmgr rank` and `llmgr insert` in a pipeline, as processes and in one."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys

import pytest
from click.testing import CliRunner
from embedding_fixture import ControlledModel, client_of, encoder_around, settings_with
from patience import PATIENCE

from services.client import ServiceError
from services.commands.insert import command as insert
from services.commands.rank import command as rank
from services.embedding.background import serve_in_background

LLMGR = [sys.executable, "-c", "from llmgr_core.command_line.main import main; main()"]


def run_rank(server, *arguments: str, given: str | bytes = ""):
    return CliRunner().invoke(rank, ["--address", server.address, "--timeout", str(PATIENCE), *arguments], input=given)


@pytest.fixture(scope="module")
def embedding(tmp_path_factory):
    """Address of an embedding server, and a client of it."""
    store = tmp_path_factory.mktemp("store")
    server = serve_in_background(encoder_around(ControlledModel()), store, settings_with())
    with server as listening, client_of(listening) as client:
        yield listening.address, client


def run_insert(embedding, *arguments: str, given: str = ""):
    result = CliRunner().invoke(insert, ["--address", embedding[0], *arguments], input=given)
    lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    return result, lines


def test_sessions_of_every_form_are_answered_a_line_each(shared_server, ranking_client):
    given = 'item-1 item-2\n\n["item-3"]\n{"session_id": "s9", "page": 2, "item_ids": ["item-4"]}\n'
    result = run_rank(shared_server, "-", "--top-k", "3", given=given)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    assert [one.get("line") for one in lines] == [1, 3, None]
    assert (lines[2]["session_id"], lines[2]["page"]) == ("s9", 2)
    for line, session in zip(lines, (["item-1", "item-2"], ["item-3"], ["item-4"]), strict=True):
        expected = [one.item_id for one in ranking_client.rank(session, top_k=3).items]
        assert [one["item_id"] for one in line["items"]] == expected


def test_a_bad_session_is_answered_with_its_error_and_the_others_go_on(shared_server):
    given = '{"item_ids": "item-1"}\n{"item_ids": [\nitem-1\n["item-1", ""]\n'
    result = run_rank(shared_server, "--sessions", "-", given=given)
    # The server's own log goes to standard output too where nobody has set it up, as in a test.
    lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    assert result.exit_code == 1
    assert ["error" in one for one in lines] == [True, True, False, True]
    assert "<stdin>:1" in lines[0]["error"]
    assert "item_ids" in lines[3]["error"]
    assert "3 sessions were refused" in result.stderr


def test_ids_alone_feed_another_command(shared_server, ranking_client):
    expected = [one.item_id for one in ranking_client.rank(["item-1"], top_k=2).items]
    assert run_rank(shared_server, "item-1", "--ids", "--top-k", "2").stdout.split("\n") == [*expected, ""]
    result = run_rank(shared_server, "-", "--ids", "--top-k", "2", given='item-1\n{"item_ids": 3}\nitem-1\n')
    assert result.stdout.split("\n") == [" ".join(expected), "", " ".join(expected), ""]
    assert result.exit_code == 1


def test_a_session_that_is_not_utf8_is_named(shared_server):
    result = run_rank(shared_server, "-", given=b"item-1\nitem-\xff\n")
    assert "UTF-8" in str(result.exception)


@pytest.mark.parametrize("arguments", [["item-1", "--sessions", "-"], ["item-1", "--json", "--ids"]])
def test_options_of_rank_that_exclude_each_other(shared_server, arguments):
    assert run_rank(shared_server, *arguments).exit_code == 2


def test_items_come_by_pipe_and_one_that_is_refused_makes_exit_code_1(embedding):
    given = "\n".join(json.dumps(one) for one in ({"item_id": "p1", "title": "soap"}, {"item_id": "p2"}))
    result, lines = run_insert(embedding, "-", given=given)
    outcomes = {one["item_id"]: one for one in lines if "item_id" in one}
    assert result.exit_code == 1
    assert outcomes["p1"]["sequence"] > 0
    assert outcomes["p2"]["code"] == "INVALID_ARGUMENT"
    assert embedding[1].get("p1").item.title == "soap"


def test_ids_come_by_pipe_to_be_deleted(embedding):
    run_insert(embedding, "-", given='{"item_id": "d1", "title": "soap"}\n{"item_id": "d2", "title": "soap"}\n')
    result, lines = run_insert(embedding, "-", "--delete", given="d1\nd2\nghost\n" + "x" * 600 + "\n")
    facts = [(one["item_id"], one.get("existed")) for one in lines if "item_id" in one]
    assert facts == [("d1", True), ("d2", True), ("ghost", False), ("x" * 600, None)]
    assert result.exit_code == 1
    with pytest.raises(ServiceError, match="NOT_FOUND"):
        embedding[1].get("d1")


@pytest.mark.parametrize("arguments", [["-", "--title", "x"], ["a", "--delete", "--title", "x"], []])
def test_options_of_insert_that_exclude_each_other(embedding, arguments):
    result, _ = run_insert(embedding, *arguments)
    assert result.exit_code == 2


def test_help_teaches_by_example_and_tells_the_exit_codes():
    for command, example in (
        (rank, "llmgr rank --sessions clicks.jsonl > rankings.jsonl"),
        (insert, "producer | llmgr insert -"),
    ):
        text = CliRunner().invoke(command, ["--help"]).output
        assert example in text
        assert "Exit codes: 0" in text


def shell(line: str) -> subprocess.CompletedProcess[str]:
    """A line of bash, in which ``llmgr`` is the command under test."""
    program = f'llmgr() {{ {shlex.join(LLMGR)} "$@"; }}\nset -o pipefail\n{line}'
    return subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=300, check=False)


def test_as_a_process_a_server_that_is_gone_is_exit_code_3_without_a_traceback():
    done = shell("echo item-1 | llmgr rank - --address 127.0.0.1:1 --timeout 60")
    assert done.returncode == 3
    assert done.stderr.startswith("llmgr: UNAVAILABLE")
    assert "hint:" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_as_a_process_a_reader_that_leaves_early_is_no_traceback(shared_server):
    done = shell(f"yes item-1 | head -3000 | llmgr rank - --address {shared_server.address} --timeout 60 | head -1")
    assert json.loads(done.stdout)["line"] == 1
    assert "Traceback" not in done.stderr
