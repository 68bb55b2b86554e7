"""Pictures of the results page. Each says which data it was drawn from, so that it can be checked without drawing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from llmgr_core.artefacts.manifest import hash_value
from llmgr_core.errors import InputError
from llmgr_core.evaluation.plots import plots
from llmgr_core.evaluation.reliability_plot import reliability_plot
from llmgr_core.evaluation.row_plot import row_plot
from trainer.report.definition import PictureBlock
from trainer.report.result_files import ResultFiles

SOURCE = re.compile(r"<!-- drawn from ([0-9a-f]{64}) -->\n")
DRAWN_BY = re.compile(r"<dc:title>(Matplotlib v[^,<]+)")
DIFFERENCE_KEYS = ("examples", "scorers", "differences", "reference")


class Picture:
    """One drawing of one result.

    Args:
        block: what to draw.
        files: where the data is.
    """

    def __init__(self, block: PictureBlock, files: ResultFiles) -> None:
        self.block, self._result = block, files[block.file]

    def source(self) -> str:
        """SHA-256 of what is drawn; equal data, equal picture."""
        return hash_value({"block": self.block.model_dump(exclude={"alt", "optional"}), "data": self._data()})

    def draw(self) -> str:
        """The SVG text.

        Raises:
            InputError: the result lacks what is to be drawn.
            ModuleNotFoundError: matplotlib is not installed.
        """
        try:
            drawing = self._drawing()
        except (KeyError, TypeError) as error:
            raise InputError(
                f"{self.block.file} holds nothing at {error} to draw {self.block.draw!r} from, of {self.block.split}"
            ) from None
        start = drawing.index("<svg")
        return f"{drawing[:start]}<!-- drawn from {self.source()} -->\n{drawing[start:]}"

    def is_drawn_in(self, path: Path) -> bool:
        """Whether the file is this picture: of this data, and byte for byte where the same matplotlib draws it."""
        if not path.is_file():
            return False
        there = path.read_text(encoding="utf-8")
        source = SOURCE.search(there)
        if source is None or source[1] != self.source():
            return False
        try:
            mine = self.draw()
        except ModuleNotFoundError:
            return True
        drawn_by, by_mine = DRAWN_BY.search(there), DRAWN_BY.search(mine)
        another = drawn_by is None or by_mine is None or drawn_by[1] != by_mine[1]
        return another or there == mine

    def _drawing(self) -> str:
        block, data = self.block, self._data()
        if block.draw == "rows":
            return row_plot(data, block.split, block.masking, block.metric)
        if block.draw == "reliability":
            return reliability_plot(data["calibration"], block.split, block.masking)
        return dict(plots({"splits": {block.split: data}}))[f"{block.split}-{block.draw}"]

    def _data(self) -> dict[str, Any]:
        if self.block.draw in ("buckets", "differences"):
            split: dict[str, Any] = self._result["splits"][self.block.split]
            return {key: split[key] for key in DIFFERENCE_KEYS}
        wanted = {"rows": ("rows", "splits"), "reliability": ("calibration",)}[self.block.draw]
        return {key: self._result[key] for key in wanted}
