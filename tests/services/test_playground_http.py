"""The playground over HTTP: what it answers, what it turns away, and how it speaks of services that fail."""

from __future__ import annotations

import http.client
import json
import socket
from contextlib import ExitStack, contextmanager

import grpc
import pytest
from bundle_fixture import ENCODER, Catalogue, free_port_settings
from damaged_records import flip
from embedding_fixture import DIMENSIONS, FINGERPRINT, ControlledModel, embedding_service, encoder_around, settings_with
from patience import PATIENCE, rank_from, wait_until

from llmgr_core.data.item import Item
from llmgr_core.errors import InputError
from llmgr_core.store.records import item_key
from services.client import EmbeddingClient, RankingClient, ServiceError
from services.embedding.background import serve_in_background
from services.playground.api import words as words_of
from services.playground.catalogue import Catalogue as Titles
from services.playground.serving import Playground
from services.ranking.server import RankingServer

ITEMS = 40
GONE = "127.0.0.1:1"


@contextmanager
def both_services(directory):
    """Addresses of a ranking and an embedding server on one store of ITEMS titled items."""
    catalogue = Catalogue(directory / "bundle", directory / "store")
    catalogue.write_bundle(num_items=ITEMS, text_dimension=DIMENSIONS, fingerprint=FINGERPRINT, encoder=ENCODER)
    settings = settings_with("serve.drain_s=0.0")
    with serve_in_background(encoder_around(ControlledModel()), catalogue.store, settings) as listening:
        with EmbeddingClient(listening.address) as client:
            items = [Item(f"item-{n}", title=f"Lamp number {n}", brand="Acmé") for n in range(ITEMS)]
            assert len(list(client.embed_many(items))) == ITEMS
        with RankingServer(catalogue.bundle, catalogue.store, free_port_settings(drain_s=0.0)) as ranking:
            yield ranking.address, listening.address


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A playground on two servers, once it has read all titles."""
    with ExitStack() as stack:
        addresses = stack.enter_context(both_services(tmp_path_factory.mktemp("playground")))
        server = stack.enter_context(Playground(*addresses, port=0).serve())
        wait_until(lambda: get(server, "/api/state")[1]["titles_complete"])
        yield server


def send(server, method, path, body=None, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=PATIENCE)
    try:
        connection.request(method, path, body, headers or {})
        reply = connection.getresponse()
        return reply.status, reply.read(), reply.headers
    finally:
        connection.close()


def get(server, path, headers=None):
    status, body, _ = send(server, "GET", path, headers=headers)
    return status, json.loads(body)


def post(server, path, value, **headers):
    body = value if isinstance(value, bytes) else json.dumps(value)
    status, reply, _ = send(server, "POST", path, body, {"Content-Type": "application/json", **headers})
    return status, json.loads(reply)


def test_the_page_brings_everything_itself_and_forbids_the_rest(page):
    for path, kind in (("/", "text/html"), ("/playground.js", "text/javascript"), ("/drawing.js", "text/javascript")):
        status, body, headers = send(page, "GET", path)
        assert status == 200
        assert headers["Content-Type"].startswith(kind)
        assert b"http://" not in body.replace(b"http://www.w3.org", b"")
        assert b"https://" not in body
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
    html = send(page, "GET", "/")[1].decode()
    assert "<script>" not in html
    assert " style=" not in html
    assert " onclick=" not in html


def test_items_are_found_by_words_of_title_and_brand_whatever_case_and_accents(page):
    _, found = get(page, "/api/items?q=ACME+number+7")
    assert [one["item_id"] for one in found["items"]] == ["item-7", "item-17", "item-27", "item-37"]
    assert found["items"][0]["brand"] == "Acmé"
    assert get(page, "/api/items?q=zzz")[1]["items"] == []
    assert len(get(page, "/api/items?q=")[1]["items"]) == 12


def test_a_ranking_has_titles_probabilities_and_times(page):
    status, result = post(page, "/api/rank", {"item_ids": ["item-1"], "top_k": 5})
    assert status == 200
    assert [one["place"] for one in result["items"]] == [1, 2, 3, 4, 5]
    assert all(one["title"].startswith("Lamp number") for one in result["items"])
    assert all(0 < one["probability"] < 1 for one in result["items"])
    assert result["ms"] >= result["server_ms"] > 0
    assert not result["fallback"]


def test_an_item_that_is_added_is_found_and_ranked_until_it_is_deleted(page):
    status, stored = post(page, "/api/insert", {"title": "Sundial", "category": "Garden > Clocks"})
    assert status == 200
    item_id = stored["item"]["item_id"]
    assert stored["item"]["category"] == "Garden > Clocks"
    assert get(page, "/api/items?q=sundial")[1]["items"][0]["item_id"] == item_id
    ranked_from(page, stored["sequence"])
    question = {"item_ids": ["item-1"], "top_k": 3, "followed": [item_id], "min_sequence": stored["sequence"]}
    ranking = post(page, "/api/rank", question)[1]
    assert item_id in [one["item_id"] for one in ranking["items"]]
    deleted = post(page, "/api/delete", {"item_id": item_id})[1]
    ranked_from(page, deleted["sequence"])
    ranking = post(page, "/api/rank", {**question, "min_sequence": deleted["sequence"]})[1]
    assert ranking["beyond"] == [item_id]
    # Whoever follows the changes may just be reading what was inserted.
    wait_until(lambda: get(page, "/api/items?q=sundial")[1]["items"] == [])


def ranked_from(page, sequence):
    """Wait until the ranking server knows of a change: for the page it would wait for a second only."""
    with RankingClient(get(page, "/api/state")[1]["ranking"]["address"], timeout=PATIENCE) as client:
        rank_from(client, sequence)


def test_an_item_that_others_insert_is_found_too(page):
    embedding = get(page, "/api/state")[1]["embedding"]["address"]
    with EmbeddingClient(embedding) as client:
        client.embed(Item("elsewhere", title="Barometer"))
    wait_until(lambda: get(page, "/api/items?q=barometer")[1]["items"])


@pytest.mark.parametrize(
    ("path", "value", "status", "words"),
    [
        ("/api/insert", {"brand": "<br>"}, 400, "item"),
        ("/api/insert", {"title": 3}, 400, "title is no text"),
        ("/api/insert", {"title": "\ud800"}, 400, "sent"),
        ("/api/rank", {"item_ids": "item-1"}, 400, "item_ids"),
        ("/api/rank", {"top_k": 0}, 400, "top_k"),
        ("/api/rank", {"top_k": True}, 400, "top_k"),
        ("/api/rank", {"item_ids": [""]}, 400, "empty"),
        ("/api/rank", {"include_seen": 3}, 400, "include_seen"),
        ("/api/rank", b"[1]", 400, "JSON object"),
        ("/api/rank", b"{", 400, "no JSON"),
        ("/api/rank", b"[" * 100_000, 400, "no JSON"),
        ("/api/rank", b" " * 300_000, 413, "longer"),
        ("/api/nothing", {}, 404, "nothing"),
    ],
)
def test_a_request_that_is_no_good_is_told_so_in_words(page, path, value, status, words):
    got, reply = post(page, path, value)
    assert got == status
    assert words in reply["error"] + reply["field"]


def test_a_change_that_the_ranker_does_not_know_of_yet_has_a_status_of_its_own(page):
    status, reply = post(page, "/api/rank", {"item_ids": ["item-1"], "min_sequence": 1 << 40})
    assert (status, reply["error"]) == (409, "The ranking service does not know of the newest change yet.")


def test_a_call_that_a_busy_service_reset_is_told_in_words():
    told = words_of(ServiceError(grpc.StatusCode.CANCELLED, "CANCELLED"), "ranking")
    assert (told.status, str(told)) == (503, "The ranking service has too much to do, or is stopping. Try again in a moment.")


def test_what_another_site_sends_is_turned_away(page):
    assert post(page, "/api/delete", {"item_id": "item-1"}, Host="evil.example")[0] == 403
    assert post(page, "/api/delete", {"item_id": "item-1"}, **{"Sec-Fetch-Site": "cross-site"})[0] == 403
    form = {"Content-Type": "text/plain"}
    assert send(page, "POST", "/api/delete", b'{"item_id": "item-1"}', form)[0] == 415
    assert get(page, "/api/items", {"Host": "127.0.0.1.evil.example"})[0] == 403
    assert get(page, "/api/items?q=number+1", {"Host": "localhost:1"})[1]["items"][0]["item_id"] == "item-1"


@pytest.mark.parametrize("path", ["/../serving.py", "/page/index.html", "/%2e%2e/api.py", "/index.html/.."])
def test_no_other_file_is_given_out(page, path):
    assert send(page, "GET", path)[0] == 404


@pytest.mark.parametrize(("path", "host"), [("http://[/", "localhost"), ("/", "[")])
def test_what_is_no_path_or_no_name_is_answered_too(page, path, host):
    with socket.create_connection(("127.0.0.1", page.server_port), timeout=PATIENCE) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert connection.recv(64).startswith(b"HTTP/1.1 403 ")


def test_services_that_are_not_there_are_named_with_the_way_out():
    with Playground(GONE, GONE, port=0).serve() as server:
        state = get(server, "/api/state")[1]
        assert "llmgr serve ranking" in state["ranking"]["error"]
        assert "llmgr serve embedding" in state["embedding"]["error"]
        status, reply = post(server, "/api/rank", {"item_ids": []})
        assert (status, "ranking service cannot be reached" in reply["error"]) == (503, True)
        status, reply = post(server, "/api/insert", {"title": "x"})
        assert (status, "embedding service cannot be reached" in reply["error"]) == (503, True)


def test_a_page_open_to_other_machines_has_to_be_asked_for():
    with pytest.raises(InputError, match="--plain-text"), Playground(host="0.0.0.0", port=0).serve():
        pass


def test_a_port_in_use_is_named(page):
    with pytest.raises(InputError, match=str(page.server_port)), Playground(port=page.server_port).serve():
        pass


def test_titles_beyond_the_limit_are_not_kept():
    with EmbeddingClient(GONE) as client:
        titles = Titles(client, 2)
        for number in range(3):
            titles.keep(Item(f"i{number}", title="lamp"))
        titles.keep(Item("i0", title="chair"))
        assert len(titles) == 2
        assert [one.item_id for one in titles.search("chair", 5)] == ["i0"]


def test_a_damaged_record_keeps_no_other_title_out(tmp_path):
    with embedding_service(tmp_path) as (client, _):
        list(client.embed_many([Item(f"i{number}", title=f"lamp {number}") for number in range(5)]))
    flip(tmp_path, "items", item_key("i2"))
    with embedding_service(tmp_path) as (client, _):
        titles = Titles(client, 10)
        titles.start()
        try:
            wait_until(titles.read_all.is_set)
            assert len(titles) == 4
        finally:
            client.close()
            titles.stop()


def test_rankings_do_not_wait_for_titles_while_the_embedding_service_is_away(tmp_path, monkeypatch):
    with both_services(tmp_path) as (ranking, _), Playground(ranking, GONE, port=0).serve() as server:
        wait_until(lambda: server.api._catalogue.error is not None)
        monkeypatch.setattr(EmbeddingClient, "get", lambda *_, **__: pytest.fail("asked for a title"))
        status, reply = post(server, "/api/rank", {"item_ids": ["item-1"]})
        assert status == 200
        assert [row["title"] for row in reply["items"]] == [""] * 20
