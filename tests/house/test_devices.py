"""A device that the machine does not have is refused with the setting's own name."""

from __future__ import annotations

import pytest
import torch

from llmgr_core.device import choose_device
from llmgr_core.errors import InputError


@pytest.mark.parametrize("name", ["cuda:99", "nonsense"])
@pytest.mark.parametrize("key", ["engine.device", "distil.device"])
def test_a_missing_device_is_refused_by_the_name_of_its_setting(name: str, key: str) -> None:
    with pytest.raises(InputError, match=f"{key}='{name}' cannot be used") as caught:
        choose_device(name, key)
    assert f"set {key} to auto" in str(caught.value)


def test_auto_is_a_gpu_where_there_is_one() -> None:
    assert choose_device("auto", "engine.device").type == ("cuda" if torch.cuda.is_available() else "cpu")
