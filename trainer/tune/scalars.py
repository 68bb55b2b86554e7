"""Curves for TensorBoard, a folder a stage."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from llmgr_core.errors import SettingsError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def require_tensorboard() -> None:
    """Fail before any work.

    Raises:
        SettingsError: TensorBoard is not installed.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            f"tune.tensorboard needs TensorBoard, which cannot be imported: {error}",
            "pip install 'llmgr[tensorboard]', or leave tune.tensorboard (--tensorboard) out",
        ) from None


class Scalars:
    """Writes event files under ``directory``: stage-1/ and stage-2/, over the steps done in that stage.

    A run that goes on writes a new file there whose head tells TensorBoard to drop what the old ones say of the steps that are
    done again.

    Args:
        directory: of this run; removed at once where the run starts anew.
        anew: no checkpoint was found.
    """

    def __init__(self, directory: Path, anew: bool) -> None:
        self._directory = directory
        self._writer: SummaryWriter | None = None
        if anew:
            shutil.rmtree(directory, ignore_errors=True)

    def start(self, stage: int, first_step: int) -> None:
        """Begin a stage, or go on with it after ``first_step`` steps."""
        from torch.utils.tensorboard import SummaryWriter

        place = self._directory / f"stage-{stage}"
        if not first_step:
            shutil.rmtree(place, ignore_errors=True)
        self._writer = SummaryWriter(str(place), purge_step=first_step + 1 if first_step else None)

    def write(self, steps_done: int, figures: Mapping[str, float], prefix: str = "") -> None:
        assert self._writer is not None
        for name, value in figures.items():
            self._writer.add_scalar(prefix + name, value, steps_done)

    def flush(self) -> None:
        """Bring everything to the disk: a checkpoint must not be ahead of the curves."""
        if self._writer is not None:
            self._writer.flush()

    def finish(self) -> None:
        """End the stage."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None
