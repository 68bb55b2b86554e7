"""Removals of what protects the services from the faults of docs/faults.md; a named test must fail after each.

``python tests/services/fault_mutations.py`` prints the table of that page.
"""

from __future__ import annotations

from typing import NamedTuple

KILL = "kill -9 of a server or a writer"
FULL_DISK = "disk full"
DAMAGE = "corrupt file or record"
NAN = "NaN or infinities from the language model"
BAD_TEXT = "bad UTF-8, NUL, empty or oversized text"
UNKNOWN_IDS = "unknown item ids"
DEADLINE = "deadline passed, call cancelled"
SLOW_CLIENT = "slow or idle clients"
OVERLOAD = "overload"
STRANGERS = "wrong, expired or no certificate; bad token"
HANG = "a ranking that hangs"
TERMINATION = "SIGTERM, drain"
CHANGES = "model change and upkeep while inserts go on"


class FaultMutation(NamedTuple):
    """One removal.

    Attributes:
        fault: the row of the catalogue.
        protection: what is removed, in words.
        file: relative to the repository.
        old: text that stands exactly once in it.
        new: what takes its place.
        test: node id, of all its cases where it has several; at least one of them must fail then.
    """

    fault: str
    protection: str
    file: str
    old: str
    new: str
    test: str


SERVICES = "tests/services/"
STORE = "tests/store/"
COMMIT = "results = await loop.run_in_executor(self._thread, self._store.write, [one.operation for one in group])"
COMMIT_LATER = (
    "from llmgr_core.store.operations import Written\n"
    "                said = self._said = getattr(self, '_said', self._store.sequence()) + len(group)\n"
    "                results = [Written(one.operation.item_id, said - len(group) + place, True, False)"
    " for place, one in enumerate(group, 1)]\n"
    "                loop.run_in_executor(self._thread, lambda group=group: (time.sleep(0.05),"
    " self._store.write([one.operation for one in group])))"
)

MUTATIONS = (
    FaultMutation(
        KILL,
        "an insert is acknowledged after its commit, not before",
        "services/embedding/commit_queue.py",
        COMMIT,
        COMMIT_LATER,
        SERVICES + "test_fault_killed_server.py::test_fault_kill_9_embedding_server",
    ),
    FaultMutation(
        KILL,
        "places of dead readers are freed when the store is opened",
        "llmgr_core/store/writing.py",
        "                environment.clear_dead_readers()\n",
        "",
        STORE + "test_faults.py::test_fault_killed_reader_does_not_keep_old_pages_for_ever",
    ),
    FaultMutation(
        KILL,
        "a worker that died is started again",
        "services/ranking/workers.py",
        "                    return\n                self._launch(number)",
        "                    return\n                return",
        SERVICES + "test_ranking_workers.py::test_fault_kill_9_ranking_worker_is_replaced_and_all_answer_alike",
    ),
    FaultMutation(
        KILL,
        "clients ask again where a server is gone",
        "services/client/calls.py",
        "if error.code is grpc.StatusCode.UNAVAILABLE or error.refused_unread:",
        "if error.refused_unread:",
        SERVICES + "test_client_retries.py::test_an_unavailable_server_is_asked_again",
    ),
    FaultMutation(
        FULL_DISK,
        "a full store is told as RESOURCE_EXHAUSTED with a time to come back",
        "services/embedding/commit_queue.py",
        "if isinstance(error, StoreFullError):",
        "if False:",
        SERVICES + "test_fault_full_disk.py::test_fault_disk_full_by_a_file_size_limit",
    ),
    FaultMutation(
        FULL_DISK,
        "an error of the disk is known as a full one",
        "llmgr_core/store/environment.py",
        "            if not _is_out_of_space(error):\n",
        "            if True:\n",
        STORE + "test_faults.py::test_fault_disk_full_by_a_file_size_limit",
    ),
    FaultMutation(
        DAMAGE,
        "pages are checked before a store is opened",
        "llmgr_core/store/environment.py",
        "        if problems:\n            shown",
        "        if False:\n            shown",
        SERVICES + "test_fault_damaged_store.py::test_fault_corrupt_db_is_refused_by_both_servers_and_named",
    ),
    FaultMutation(
        DAMAGE,
        "a file cut short is never opened",
        "llmgr_core/store/environment.py",
        "LEAST_BYTES = 8192",
        "LEAST_BYTES = 0",
        SERVICES + "test_fault_damaged_store.py::test_fault_truncated_db_is_refused_and_never_a_signal",
    ),
    FaultMutation(
        DAMAGE,
        "checksum of a vector",
        "llmgr_core/store/records.py",
        "if magic != _VECTOR_MAGIC or version != VERSION or crc32(row[_SUMMED_FROM:]) != crc:",
        "if False:",
        STORE + "test_faults.py::test_fault_damaged_vector_is_never_returned_and_is_named",
    ),
    FaultMutation(
        DAMAGE,
        "checksum of an item",
        "llmgr_core/store/records.py",
        "if magic != _ITEM_MAGIC or version != VERSION or crc32(row[_SUMMED_FROM:]) != crc:",
        "if False:",
        SERVICES + "test_fault_damaged_store.py::test_fault_corrupt_record_of_an_item_is_data_loss_until_it_is_inserted_again",
    ),
    FaultMutation(
        DAMAGE,
        "checksum of a change",
        "llmgr_core/store/records.py",
        "if magic != _CHANGE_MAGIC or version != VERSION or crc32(row[_SUMMED_FROM:], crc32(key)) != crc:",
        "if False:",
        STORE + "test_faults.py::test_fault_damaged_change_is_skipped_and_the_ones_after_it_are_not",
    ),
    FaultMutation(
        DAMAGE,
        "checksum of what a store says about itself",
        "llmgr_core/store/metadata.py",
        "return checksum is None or bytes(checksum) == _checksum(transaction, meta)",
        "return True",
        STORE + "test_maintenance.py::test_what_a_store_says_about_itself_has_a_checksum",
    ),
    FaultMutation(
        DAMAGE,
        "a text whose vector was lost is embedded again",
        "services/embedding/background_work.py",
        "            await self._fill_these(waiting, encoder)",
        "            return",
        SERVICES + "test_fault_damaged_store.py::test_fault_corrupt_record_of_a_vector_is_counted_and_embedded_again_by_itself",
    ),
    FaultMutation(
        NAN,
        "numbers are looked at before they are stored",
        "llmgr_core/store/records.py",
        "    if not np.isfinite(half).all():",
        "    if False:",
        SERVICES + "test_fault_model_output.py::test_fault_nan_model_output_is_never_stored_and_takes_nobody_along",
    ),
    FaultMutation(
        BAD_TEXT,
        "NUL in a text of an item",
        "services/embedding/validation.py",
        '        if "\\0" in text:',
        "        if False:",
        SERVICES + "test_fault_bad_text.py::test_fault_nul_empty_or_oversized_text_is_refused_by_field",
    ),
    FaultMutation(
        BAD_TEXT,
        "the bound on an item's texts",
        "services/embedding/validation.py",
        "        if total > max_text_bytes:",
        "        if False:",
        SERVICES + "test_fault_bad_text.py::test_fault_nul_empty_or_oversized_text_is_refused_by_field",
    ),
    FaultMutation(
        BAD_TEXT,
        "an empty id",
        "services/embedding/validation.py",
        "    if not item_id:",
        "    if False:",
        SERVICES + "test_fault_bad_text.py::test_fault_bad_id_is_refused_by_field",
    ),
    FaultMutation(
        BAD_TEXT,
        "bytes are parsed by the methods, so that a bad message is the caller's fault",
        "services/server/errors.py",
        "    except DecodeError:",
        "    except ZeroDivisionError:",
        SERVICES + "test_fault_bad_text.py::test_fault_bad_utf8_is_refused_without_an_exceptions_words",
    ),
    FaultMutation(
        BAD_TEXT,
        "NUL in an id of a session",
        "services/ranking/session_query.py",
        '        if "\\0" in item_id:',
        "        if False:",
        SERVICES + "test_ranking_requests.py::test_fault_bad_text_empty_nul_and_over_long_ids_are_refused_by_field_and_place",
    ),
    FaultMutation(
        BAD_TEXT,
        "clients refuse text that no UTF-8 can carry",
        "services/item_messages.py",
        "    except (UnicodeEncodeError, ValueError) as error:",
        "    except ZeroDivisionError as error:",
        SERVICES + "test_client_retries.py::test_fault_bad_utf8_of_an_item_is_refused_before_it_is_sent",
    ),
    FaultMutation(
        BAD_TEXT,
        "the bound on a message",
        "services/server/binding.py",
        '("grpc.max_receive_message_length", max_request_bytes)',
        '("grpc.max_receive_message_length", -1)',
        SERVICES + "test_fault_bad_text.py::test_fault_message_beyond_the_limit_is_refused",
    ),
    FaultMutation(
        UNKNOWN_IDS,
        "unknown ids are listed in the answer",
        "services/ranking/answers.py",
        "if indices is None or not (indices == UNKNOWN).any():",
        "if True:",
        SERVICES + "test_ranking_requests.py::test_fault_unknown_ids_only_get_popularity_and_are_listed",
    ),
    FaultMutation(
        UNKNOWN_IDS,
        "unknown clicks are left out of the session",
        "llmgr_core/ranker/snapshot.py",
        "        clicks = clicks[clicks != UNKNOWN]\n",
        "",
        SERVICES + "test_ranking_requests.py::test_fault_unknown_ids_among_known_ones_are_skipped_and_listed",
    ),
    FaultMutation(
        DEADLINE,
        "scoring asks between two blocks whether anybody waits",
        "services/ranking/service.py",
        "                    if not context.is_active():",
        "                    if False:",
        SERVICES + "test_ranking_overload.py::test_fault_deadline_scoring_stops_where_nobody_waits_any_more",
    ),
    FaultMutation(
        DEADLINE,
        "a waiting text that nobody wants any more is dropped",
        "services/embedding/text_queue.py",
        "                self._drop(flight)",
        "                pass",
        SERVICES + "test_embedding_service.py::test_fault_deadline_drops_the_text_that_still_waits",
    ),
    FaultMutation(
        DEADLINE,
        "one who hangs up does not take the text from others",
        "services/embedding/text_queue.py",
        "            if not flight.waiting and not flight.started:",
        "            if not flight.started:",
        SERVICES + "test_embedding_service.py::test_fault_cancelled_caller_does_not_take_the_text_from_others_who_want_it",
    ),
    FaultMutation(
        SLOW_CLIENT,
        "a stream is read no further than its limit",
        "services/embedding/item_stream.py",
        "            await room.acquire()\n",
        "",
        SERVICES + "test_fault_slow_client.py::test_fault_slow_client_is_not_read_further_than_the_limit_of_a_stream",
    ),
    FaultMutation(
        SLOW_CLIENT,
        "streams together have no more bytes in work than the budget",
        "services/embedding/byte_budget.py",
        "        if not self._waiting and self.taken + share <= self._limit:",
        "        if True:",
        SERVICES
        + "test_fault_slow_client_streams.py::"
        + "test_fault_slow_client_streams_together_have_no_more_in_work_than_the_budget",
    ),
    FaultMutation(
        SLOW_CLIENT,
        "the bound on open reflection streams",
        "services/server/bounded_reflection.py",
        'BoundedPool(STREAMS, STREAMS, "reflection")',
        'BoundedPool(STREAMS, 10**6, "reflection")',
        SERVICES + "test_fault_idle_streams.py::test_fault_slow_client_idle_reflection_streams_leave_health_its_threads",
    ),
    FaultMutation(
        SLOW_CLIENT,
        "idle peers are asked whether they are still there",
        "services/server/binding.py",
        '        ("grpc.keepalive_permit_without_calls", 1),\n',
        "",
        SERVICES + "test_fault_idle_connections.py::test_fault_idle_connections_whose_peer_is_silent_are_closed",
    ),
    FaultMutation(
        SLOW_CLIENT,
        "connections are renewed with age",
        "services/server/binding.py",
        "    if max_connection_age_s is not None:",
        "    if False:",
        SERVICES + "test_fault_idle_connections.py::test_fault_idle_connections_are_renewed_with_age",
    ),
    FaultMutation(
        SLOW_CLIENT,
        "the bound on the calls of a connection",
        "services/server/binding.py",
        '        ("grpc.max_concurrent_streams", max_streams),\n',
        "",
        SERVICES + "test_security_limits.py::test_fault_slow_client_streams_and_headers_of_one_connection_are_bounded",
    ),
    FaultMutation(
        SLOW_CLIENT,
        "who pings all the time is sent away",
        "services/server/binding.py",
        '        ("grpc.http2.max_ping_strikes", PING_STRIKES),\n',
        '        ("grpc.http2.max_ping_strikes", 0),\n',
        SERVICES + "test_security_limits.py::test_fault_slow_client_that_pings_all_the_time_is_sent_away",
    ),
    FaultMutation(
        OVERLOAD,
        "calls beyond the queue are refused",
        "services/server/admission.py",
        "return method.refusal if method.pool.full else method.handler",
        "return method.handler",
        SERVICES + "test_ranking_server.py::test_fault_overload_a_full_queue_sheds_at_once_and_says_when_to_come_back",
    ),
    FaultMutation(
        OVERLOAD,
        "the queue is no longer than calls may wait",
        "services/server/admission.py",
        "return self._admitted * self._seconds_each > self._longest_wait",
        "return False",
        SERVICES + "test_ranking_overload.py::test_fault_overload_the_queue_is_as_long_as_the_wait_allows",
    ),
    FaultMutation(
        OVERLOAD,
        "the bound on calls that gRPC holds unread",
        "services/server/binding.py",
        "    if max_unread is not None:",
        "    if False:",
        SERVICES
        + "test_fault_overload_unread.py::"
        + "test_fault_overload_what_grpc_refuses_unread_is_refused_by_nobody_else_and_counted",
    ),
    FaultMutation(
        OVERLOAD,
        "the bound on texts that wait for the language model",
        "services/embedding/text_queue.py",
        "if not bulk and len(self._single) >= self._max_queued:",
        "if False:",
        SERVICES + "test_embedding_service.py::test_fault_overload_sheds_at_once_and_says_when_to_come_back",
    ),
    FaultMutation(
        OVERLOAD,
        "clients make a call again that was refused unread",
        "services/client/calls.py",
        "grpc.StatusCode.UNAVAILABLE or error.refused_unread:",
        "grpc.StatusCode.UNAVAILABLE:",
        SERVICES + "test_client_retries.py::test_fault_overload_a_call_that_the_server_s_grpc_reset_is_made_again",
    ),
    FaultMutation(
        STRANGERS,
        "clients must show a certificate (mutual TLS)",
        "services/security/server_certificate.py",
        "mutual = self._files.authorities is not None",
        "mutual = False",
        SERVICES + "test_security_tls.py::test_fault_wrong_certificate_is_refused_by_mutual_tls",
    ),
    FaultMutation(
        STRANGERS,
        "an expired certificate is refused",
        "services/security/server_certificate.py",
        "        if expires <= datetime.now(UTC):",
        "        if False:",
        SERVICES + "test_security_tls.py::test_fault_expired_certificate_of_a_client_is_refused_by_both_sides",
    ),
    FaultMutation(
        STRANGERS,
        "a token is compared",
        "services/security/tokens.py",
        "            if hmac.compare_digest(known, digest):",
        "            if True:",
        SERVICES + "test_security_tokens.py::test_fault_bad_token_nothing_but_one_whole_token_lets_in",
    ),
    FaultMutation(
        STRANGERS,
        "a method asks for its scope",
        "services/security/gate.py",
        "        if caller.scope < required:",
        "        if False:",
        SERVICES + "test_security_tokens.py::test_fault_bad_token_every_method_asks_for_its_scope",
    ),
    FaultMutation(
        HANG,
        "the watchdog notices and health says so",
        "services/ranking/watchdog.py",
        "            stuck = longest > TICKS",
        "            stuck = False",
        SERVICES + "test_ranking_overload.py::test_fault_hang_health_follows_a_ranking_that_hangs_and_the_metric_says_so",
    ),
    FaultMutation(
        HANG,
        "a process that is stuck for good ends",
        "services/ranking/watchdog.py",
        "if self._exit_after is not None and longest * self._tick > self._exit_after:",
        "if False:",
        SERVICES + "test_ranking_overload.py::test_fault_hang_ends_the_process_with_its_stacks_written",
    ),
    FaultMutation(
        HANG,
        "and so does one in which native code holds the interpreter",
        "services/ranking/watchdog.py",
        "            signal.setitimer(signal.ITIMER_PROF, self._exit_after)",
        "            pass",
        SERVICES + "test_ranking_overload.py::test_fault_hang_ends_the_process_with_its_stacks_written",
    ),
    FaultMutation(
        TERMINATION,
        "NOT_SERVING is said before calls are refused",
        "services/ranking/server.py",
        "        self._answering = False\n        self._tell_health()\n",
        "        self._answering = False\n",
        SERVICES + "test_ranking_server.py::test_fault_termination_not_serving_is_said_before_calls_are_refused",
    ),
    FaultMutation(
        TERMINATION,
        "a drained server does not say SERVING",
        "services/ranking/server.py",
        "self._answering and not self._draining and not self._is_stuck",
        "self._answering and not self._is_stuck",
        SERVICES + "test_security_admin.py::test_a_drained_server_says_so_and_still_answers",
    ),
    FaultMutation(
        CHANGES,
        "LMDB's lock file goes with the file that it was of",
        "llmgr_core/store/place.py",
        "        (directory / LMDB_LOCK_NAME).unlink(missing_ok=True)\n",
        "",
        STORE + "test_maintenance.py::test_a_reader_goes_on_while_the_store_is_compacted_and_the_next_one_reads_the_new_file",
    ),
    FaultMutation(
        CHANGES,
        "a text that comes back while the store is pruned is looked at again",
        "llmgr_core/store/pruning.py",
        "                used.update(_texts_of(row) if row is not None else ())",
        "                pass",
        STORE + "test_maintenance.py::test_a_text_that_comes_back_while_a_store_is_pruned_keeps_its_vector",
    ),
    FaultMutation(
        CHANGES,
        "inserts are written under both encoders",
        "services/embedding/insertion.py",
        "texts = (first.text, *(one.text for one in rest if isinstance(one, _Encoded)))",
        "texts = (first.text,)",
        SERVICES + "test_embedding_changeover.py::test_both_versions_are_readable_and_inserts_write_both_until_the_switch",
    ),
    FaultMutation(
        CHANGES,
        "equal texts share a forward",
        "services/embedding/text_queue.py",
        "flight = self._flights.get(key) or self._enqueue",
        "flight = self._enqueue",
        SERVICES + "test_embedding_service.py::test_a_hundred_concurrent_duplicates_cost_one_forward",
    ),
    FaultMutation(
        CHANGES,
        "the encoder is not changed while an item has no vector of the next one",
        "services/embedding/background_work.py",
        "            if self._failed:\n",
        "            if False:\n",
        SERVICES + "test_embedding_changeover.py::test_an_item_that_came_after_the_last_look_holds_the_change_back",
    ),
)


def table() -> str:
    """Rows of docs/faults.md, in Markdown."""
    lines = ["| Fault | What protects | Where | Test that fails without it |", "|---|---|---|---|"]
    for one in MUTATIONS:
        lines.append(f"| {one.fault} | {one.protection} | `{one.file}` | `{one.test.partition('::')[2]}` |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
