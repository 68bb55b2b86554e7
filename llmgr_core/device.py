"""From a settings value to a torch device."""

from __future__ import annotations

import torch

from llmgr_core.errors import InputError


def choose_device(name: str, key: str) -> torch.device:
    """The torch device of a settings value; "auto" is a GPU where there is one.

    Args:
        name: the value.
        key: dotted key of the setting, for messages.

    Raises:
        InputError: no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"{key}={name!r} cannot be used: {str(error).splitlines()[0]}", f"set {key} to auto") from None
    return device
