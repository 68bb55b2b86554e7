"""A language model that gives NaN or infinities, or fails."""

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from embedding_fixture import (
    ControlledModel,
    measured_service,
)
from patience import PATIENCE, wait_until
from rounds import rounds

from llmgr_core.data.item import Item
from services.client import ServiceError


@rounds(10)
def test_fault_nan_model_output_is_never_stored_and_takes_nobody_along(tmp_path, capsys):
    model = ControlledModel()
    model.broken = {"cursed words"}
    model.raising = {"explosive words"}
    with measured_service(tmp_path, model) as (client, _, measured):
        model.running.clear()
        with ThreadPoolExecutor(8) as pool:
            first = pool.submit(client.embed, Item("first", title="first"))
            assert model.entered.wait(PATIENCE)
            good = [pool.submit(client.embed, Item(f"good {n}", title=f"good {n}")) for n in range(3)]
            bad = [pool.submit(client.embed, Item(word, title=f"{word} words")) for word in ("cursed", "explosive")]
            wait_until(lambda: measured("queued_texts") == 5)
            model.running.set()
            assert all(one.result().sequence for one in (first, *good))
            for one in bad:
                error = one.exception()
                assert isinstance(error, ServiceError)
                assert (error.code, error.reason) == (grpc.StatusCode.INTERNAL, "MODEL_FAULT")
                assert "words" not in str(error)
        for item_id in ("cursed", "explosive"):
            with pytest.raises(ServiceError, match="NOT_FOUND"):
                client.get(item_id)
        assert client.info().vectors == 4
        # A model that has recovered is asked again.
        model.broken.clear()
        assert client.embed(Item("cursed", title="cursed words")).sequence == 5
    assert "secret text" not in capsys.readouterr().err
