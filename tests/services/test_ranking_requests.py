"""Every kind of bad request has its defined answer, over a real connection."""

from __future__ import annotations

import grpc
import pytest
from bundle_fixture import ITEMS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patience import PATIENCE

from services.client import RankingClient, ServiceError
from services.ranking.server import FULL_NAME, RankingServer

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def refused_field(client: RankingClient, **request) -> str:
    """The field that INVALID_ARGUMENT names."""
    with pytest.raises(ServiceError) as raised:
        client.rank(request.pop("item_ids", ["item-1"]), **request)
    assert raised.value.code is INVALID
    assert raised.value.reason == "INVALID_FIELD"
    assert raised.value.violations[0].description
    return raised.value.violations[0].field


def call_raw(server: RankingServer, method: str, payload: bytes) -> bytes:
    with grpc.insecure_channel(server.address) as channel:
        return channel.unary_unary(f"/{FULL_NAME}/{method}")(payload, timeout=PATIENCE)


def test_empty_session_gets_popularity_with_fallback_set(ranking_client, shared_server):
    ranking = ranking_client.rank([], top_k=ITEMS)
    popularity = shared_server.current.ranker.snapshot.parts.popularity
    counts = [popularity[int(item.item_id.removeprefix("item-"))] for item in ranking.items]
    assert ranking.fallback
    assert counts == sorted(counts, reverse=True)
    assert sum(item.probability for item in ranking.items) == pytest.approx(1.0, abs=1e-4)


def test_fault_unknown_ids_only_get_popularity_and_are_listed(ranking_client):
    ranking = ranking_client.rank(["ghost", "phantom", "ghost"])
    assert ranking.fallback
    assert ranking.unknown_item_ids == ("ghost", "phantom")
    assert [item.item_id for item in ranking.items] == [item.item_id for item in ranking_client.rank([]).items]


def test_fault_unknown_ids_among_known_ones_are_skipped_and_listed(ranking_client):
    mixed = ranking_client.rank(["item-3", "ghost", "item-4"])
    plain = ranking_client.rank(["item-3", "item-4"])
    assert not mixed.fallback
    assert mixed.unknown_item_ids == ("ghost",)
    assert mixed.items == plain.items


def test_over_long_session_is_refused_and_named(ranking_client, shared_server):
    limit = ranking_client.info().limits["max_session_items"]
    assert len(ranking_client.rank(["item-1"] * limit).items) == 20
    assert refused_field(ranking_client, item_ids=["item-1"] * (limit + 1)) == "item_ids"


def test_clicks_beyond_the_encoded_ones_still_count_as_seen(ranking_client):
    session = [f"item-{index}" for index in range(100)]
    encoded = ranking_client.info().limits["max_encoded_clicks"]
    assert encoded < len(session)
    ranked = {item.item_id for item in ranking_client.rank(session, top_k=ITEMS).items}
    assert ranked == {f"item-{index}" for index in range(100, ITEMS)}


def test_duplicate_ids_are_allowed_in_a_session(ranking_client):
    ranking = ranking_client.rank(["item-1", "item-2", "item-1", "item-1"], top_k=ITEMS)
    assert len(ranking.items) == ITEMS - 2
    assert ranking.unknown_item_ids == ()


def test_duplicate_candidates_are_ranked_once(ranking_client):
    ranking = ranking_client.rank(["item-1"], candidate_ids=["item-7", "item-7", "item-8"])
    assert sorted(item.item_id for item in ranking.items) == ["item-7", "item-8"]


def test_top_k_unset_means_twenty(ranking_client):
    assert len(ranking_client.rank(["item-1"]).items) == 20


def test_top_k_beyond_the_catalogue_returns_all_that_is_eligible(ranking_client):
    assert len(ranking_client.rank(["item-1"], top_k=1000).items) == ITEMS - 1


@pytest.mark.parametrize("top_k", [1001, 2**32 - 1])
def test_huge_top_k_is_refused_and_named(ranking_client, top_k):
    assert refused_field(ranking_client, top_k=top_k) == "top_k"


def test_fault_unknown_ids_among_candidates_are_listed_and_probabilities_cover_the_known_ones(ranking_client):
    ranking = ranking_client.rank(["item-1"], candidate_ids=["item-5", "ghost", "item-6"])
    assert {item.item_id for item in ranking.items} == {"item-5", "item-6"}
    assert sum(item.probability for item in ranking.items) == pytest.approx(1.0, abs=1e-5)
    assert ranking.unknown_item_ids == ("ghost",)


def test_fault_unknown_ids_as_only_candidates_leave_nothing_to_rank(ranking_client):
    ranking = ranking_client.rank(["item-1"], candidate_ids=["ghost"])
    assert ranking.items == ()
    assert ranking.unknown_item_ids == ("ghost",)


def test_exclusions_go_before_candidates_and_before_seen_items(ranking_client):
    ranking = ranking_client.rank(
        ["item-1"], candidate_ids=["item-1", "item-5", "item-6"], exclude_item_ids=["item-5"], include_seen=True
    )
    assert {item.item_id for item in ranking.items} == {"item-1", "item-6"}
    hidden = ranking_client.rank(["item-1"], candidate_ids=["item-1", "item-6"], include_seen=False)
    assert {item.item_id for item in hidden.items} == {"item-6"}


def test_include_seen_unset_follows_the_bundle(ranking_client):
    assert ranking_client.info().include_seen_default is False
    unset = {item.item_id for item in ranking_client.rank(["item-1"], top_k=1000).items}
    asked = {item.item_id for item in ranking_client.rank(["item-1"], top_k=1000, include_seen=True).items}
    assert asked - unset == {"item-1"}


def test_probabilities_do_not_depend_on_top_k(ranking_client):
    few = ranking_client.rank(["item-1", "item-9"], top_k=3).items
    many = ranking_client.rank(["item-1", "item-9"], top_k=1000).items
    assert [item.probability for item in few] == [item.probability for item in many[:3]]
    assert sum(item.probability for item in many) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("field", ["item_ids", "candidate_ids", "exclude_item_ids"])
@pytest.mark.parametrize("bad", ["", "a\0b", "x" * 513, "é" * 257])
def test_fault_bad_text_empty_nul_and_over_long_ids_are_refused_by_field_and_place(ranking_client, field, bad):
    request = {field: ["item-2", bad]}
    assert refused_field(ranking_client, **request) == f"{field}[1]"


def test_ids_of_the_greatest_length_are_merely_unknown(ranking_client):
    longest = "é" * 256
    assert ranking_client.rank([longest]).unknown_item_ids == (longest,)


def test_too_many_candidates_and_exclusions_are_refused(ranking_client):
    limits = ranking_client.info().limits
    assert refused_field(ranking_client, candidate_ids=["a"] * (limits["max_candidates"] + 1)) == "candidate_ids"
    assert refused_field(ranking_client, exclude_item_ids=["a"] * (limits["max_excluded"] + 1)) == "exclude_item_ids"


def test_a_bad_session_of_a_batch_is_named_by_its_place(ranking_client):
    with pytest.raises(ServiceError) as raised:
        ranking_client.rank_many([["item-1"], ["item-2", ""]])
    assert raised.value.violations[0].field == "sessions[1].item_ids[1]"


def test_a_batch_of_too_many_sessions_is_refused(ranking_client):
    limit = ranking_client.info().limits["max_sessions"]
    with pytest.raises(ServiceError) as raised:
        ranking_client.rank_many([[]] * (limit + 1))
    assert raised.value.violations[0].field == "sessions"


def test_a_batch_answers_as_single_requests_do_and_in_their_order(ranking_client):
    sessions = [["item-1"], [], ["item-2", "item-3"], ["ghost"]]
    batch = ranking_client.rank_many(sessions, top_k=5)
    single = [ranking_client.rank(session, top_k=5) for session in sessions]
    assert [one.items for one in batch] == [one.items for one in single]
    assert [one.fallback for one in batch] == [False, True, False, True]


def test_an_empty_batch_is_answered_by_an_empty_reply(ranking_client):
    assert ranking_client.rank_many([]) == []


@pytest.mark.parametrize("method", ["RankSession", "RankSessions", "GetInfo"])
def test_fault_bad_text_bytes_that_are_no_message_are_an_invalid_argument(shared_server, method):
    with pytest.raises(grpc.RpcError) as raised:
        call_raw(shared_server, method, b"\xff\xff\xff\xff")
    assert raised.value.code() is INVALID
    assert "Exception" not in raised.value.details()


def test_fault_bad_text_ids_that_are_not_utf8_are_an_invalid_argument(shared_server):
    with pytest.raises(grpc.RpcError) as raised:
        call_raw(shared_server, "RankSession", b"\x0a\x02\xc3\x28")
    assert raised.value.code() is INVALID
    assert "UTF-8" in raised.value.details()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(payload=st.binary(max_size=64))
def test_no_bytes_at_all_bring_out_an_internal_error(raw_channel, payload):
    try:
        raw_channel.unary_unary(f"/{FULL_NAME}/RankSession")(payload, timeout=PATIENCE)
    except grpc.RpcError as error:
        assert error.code() is INVALID  # noqa: PT017


@pytest.fixture(scope="module")
def raw_channel(shared_server):
    with grpc.insecure_channel(shared_server.address) as channel:
        yield channel


def test_a_message_beyond_the_limit_is_refused_before_it_is_read(shared_server):
    with pytest.raises(grpc.RpcError) as raised:
        call_raw(shared_server, "RankSession", b"\x0a" + b"\x00" * (17 << 20))
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_an_unknown_method_is_unimplemented(shared_server):
    with pytest.raises(grpc.RpcError) as raised:
        call_raw(shared_server, "Guess", b"")
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
