"""The type of a fixture that makes wheels on the spot."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from llmgr_core.downloads.wheels import Wheel

MakeWheel = Callable[[str, Mapping[str, bytes]], Wheel]
