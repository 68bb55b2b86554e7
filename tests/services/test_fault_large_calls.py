"""Single calls with large items: what they hold of the server's memory together is bounded, whatever their number."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from embedding_fixture import ControlledModel, measured_service
from patience import wait_until

from llmgr_core.data.item import Item
from services.client import EmbeddedItem, ServiceError

LIMIT = 64 << 10
CALLS = 20


@pytest.mark.parametrize("size", [10_000, 100_000], ids=["several fit", "none fits"])
def test_fault_overload_single_calls_have_no_more_in_work_than_their_bytes(tmp_path: Path, size: int):
    """While the model stands still; the others are refused at once, and what is stored already is answered all the same."""
    fitting = max(LIMIT // (size + 100), 1)
    model = ControlledModel()
    with measured_service(tmp_path, model, f"embed.max_call_bytes={LIMIT}") as (client, _, measured):
        stored = Item("stored", title="y" * size)
        first = client.embed(stored)
        model.running.clear()

        def embed(number: int) -> EmbeddedItem | ServiceError:
            try:
                return client.embed(Item(f"item-{number}", title=f"{number} {'x' * size}"))
            except ServiceError as error:
                return error

        def refused() -> float:
            return measured("refused_calls_total")

        def with_the_model() -> float:
            return measured("queued_texts") + sum(len(batch) for batch in model.batches[1:])

        assert refused() == 0
        with ThreadPoolExecutor(CALLS) as pool:
            calls = [pool.submit(embed, number) for number in range(CALLS)]
            try:
                wait_until(lambda: sum(call.done() for call in calls) + with_the_model() == CALLS)
                assert with_the_model() == fitting
                again = client.embed(stored)
                assert (again.sequence, again.cached) == (first.sequence, True)
            finally:
                model.running.set()
            outcomes = [call.result() for call in calls]
        errors = [one for one in outcomes if isinstance(one, ServiceError)]
        assert len(errors) == CALLS - fitting == refused()
        assert {error.code for error in errors} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert {error.reason for error in errors} == {"OVERLOADED"}
        assert all(error.retry_after and error.retry_after > 0 for error in errors)
        # And what they held is given back.
        assert isinstance(embed(CALLS), EmbeddedItem)
        assert refused() == len(errors)
