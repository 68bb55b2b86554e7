"""Where fetched models and data sets stand, and how a name finds its directory."""

from __future__ import annotations

import os
from pathlib import Path

from llmgr_core.errors import InputError

PACKAGED_MODELS = ("minilm", "smollm2-135m")


def home() -> Path:
    """The cache directory: ``$LLMGR_HOME``, else ``~/.cache/llmgr``."""
    value = os.environ.get("LLMGR_HOME")
    return Path(value).expanduser() if value else Path.home() / ".cache" / "llmgr"


def model_directory(name_or_path: str | Path) -> Path | str:
    """What to hand to ``from_pretrained``.

    Args:
        name_or_path: "minilm" or "smollm2-135m"; a directory on this machine; or a Hugging Face id.

    Returns:
        A directory for the first two; the id itself, as text, for the last.

    Raises:
        InputError: a packaged model that has not been fetched yet, or a text that is neither a directory nor an id.
    """
    name = str(name_or_path)
    if name in PACKAGED_MODELS:
        path = home() / "models" / name
        if not path.is_dir():
            raise InputError(f"the model {name} is not at {path}", f"fetch it with `llmgr model {name}`")
        return path
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise InputError(f"{path} holds no config.json, so it is no model directory", "point at the directory itself")
        return path
    if isinstance(name_or_path, Path) or name.startswith((".", "/", "~")) or name.count("/") > 1 or not name.strip():
        raise InputError(
            f"no model directory at {name!r}", f"name a directory, a Hugging Face id, or one of {', '.join(PACKAGED_MODELS)}"
        )
    return name


def data_directory(name: str) -> Path:
    """Directory of a data set: ``$LLMGR_DATA/NAME`` where it exists, else ``home()/data/NAME``.

    Raises:
        InputError: it stands in neither place.
    """
    places = [home() / "data" / name]
    if os.environ.get("LLMGR_DATA"):
        places.insert(0, Path(os.environ["LLMGR_DATA"]).expanduser() / name)
    for path in places:
        if path.is_dir():
            return path
    raise InputError(
        f"no data set {name!r}: looked for {' and '.join(str(path) for path in places)}",
        f"fetch it with `llmgr data {name}`; `llmgr data` lists the names",
    )
