"""Removals of what protects what was stored: kills, full disks, damage, useless vectors."""

from __future__ import annotations

from fault_removal import DAMAGE, FULL_DISK, KILL, NAN, SERVICES, STORE, FaultMutation

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
        "                try:\n                    self._launch(number)",
        "                return\n                try:\n                    self._launch(number)",
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
)
