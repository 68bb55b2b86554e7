"""Telling that a server answers, and where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def announce(facts: dict[str, Any], ready_file: Path | None) -> None:
    """Tell on standard output, and in a file where asked, that a server answers and where."""
    line = json.dumps({"event": "serving", **facts})
    print(line, flush=True)
    if ready_file is not None:
        # Whoever waits for the file must never read half of it.
        partial = ready_file.with_name(ready_file.name + ".partial")
        partial.write_text(line + "\n", encoding="utf-8")
        partial.replace(ready_file)
