"""`llmgr rank` and `llmgr serve ranking` as a person meets them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest
from bundle_fixture import make_catalogue
from click.testing import CliRunner
from patience import PATIENCE, rank_from, wait_until
from server_process import places

from llmgr_core.commands.bench import command as bench
from services.client import RankingClient, RetryPolicy, ServiceError
from services.client.local_server import ServerProcess
from services.commands.rank import command as rank

LLMGR = [sys.executable, "-c", "from llmgr_core.command_line.main import main; main()"]


def run_rank(server, *arguments: str):
    return CliRunner().invoke(
        rank, ["--address", server.address, "--timeout", str(PATIENCE), *arguments], catch_exceptions=False
    )


def test_rank_prints_a_table_with_one_line_an_item(shared_server):
    lines = run_rank(shared_server, "item-1", "--top-k", "4").output.splitlines()
    assert lines[0].split() == ["rank", "item", "probability", "score"]
    assert [line.split()[0] for line in lines[1:5]] == ["1", "2", "3", "4"]
    assert "bundle" in lines[5]


def test_rank_says_when_it_fell_back_to_popularity_and_what_was_unknown(shared_server):
    output = run_rank(shared_server, "ghost").output
    assert "popularity" in output
    assert "unknown: ghost" in output


def test_rank_prints_ids_that_look_like_markup_as_they_are(shared_server):
    assert "unknown: [bold]x[/bold]" in run_rank(shared_server, "[bold]x[/bold]").output


def test_rank_as_json_is_the_whole_reply(shared_server):
    reply = json.loads(run_rank(shared_server, "item-1", "--top-k", "2", "--json").output)
    assert len(reply["items"]) == 2
    assert reply["fallback"] is False
    assert reply["sequence"] == 120


def test_rank_shows_titles_where_an_embedding_server_knows_them(live_servers):
    from llmgr_core.data.item import Item
    from services.client import EmbeddingClient

    with EmbeddingClient(live_servers.embedding.address) as client:
        sequence = client.embed(Item("chair-1", title="[red] chair")).sequence
    with RankingClient(live_servers.ranking.address, timeout=PATIENCE) as client:
        rank_from(client, sequence)
    arguments = ["--candidate", "chair-1", "--min-sequence", str(sequence), "--titles-from", live_servers.embedding.address]
    output = run_rank(live_servers.ranking, "item-1", *arguments).output
    assert "[red] chair" in output


def test_rank_without_a_server_is_an_error_with_a_hint():
    with pytest.raises(ServiceError, match="llmgr serve"):
        CliRunner().invoke(rank, ["--address", "127.0.0.1:1", "--timeout", "60", "x"], catch_exceptions=False)


def test_serving_on_a_port_in_use_ends_with_an_error_that_names_it(catalogue):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [*LLMGR, "serve", "ranking", *places(catalogue), "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert str(port) in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_workers_share_a_port_and_one_that_dies_is_replaced(tmp_path):
    catalogue = make_catalogue(tmp_path)
    with ServerProcess("ranking", tmp_path, *places(catalogue), "--workers", "2") as server:
        pids = server.facts["pids"]
        assert len(set(pids)) == 2
        subprocess.run(["kill", "-9", str(pids[0])], check=True)
        # Until it is gone, the kernel may give it further connections.
        with RankingClient(server.address, timeout=PATIENCE, retry=RetryPolicy(attempts=20)) as client:
            assert len(client.rank(["item-1"]).items) == 20
        wait_until(lambda: "worker_died" in server.log())
        assert server.terminate() == 0


def test_bench_lists_benchmarks_without_importing_them():
    assert CliRunner().invoke(bench, ["--help"]).exit_code == 0
