"""What may stand in a bundle: weights as safetensors, and JSON. Nothing else, so that nothing in it can execute code."""

from __future__ import annotations

from pathlib import Path

from llmgr_core.errors import ArtefactError

ALLOWED_SUFFIXES = (".json", ".safetensors")


def refuse_other_files(directory: Path) -> None:
    """Look at every name below a directory.

    Raises:
        ArtefactError: a file of another kind (.bin, .pt and .pkl are pickles), or a link.
    """
    for path in sorted(directory.rglob("*")):
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise ArtefactError(f"{path} is not a plain file", "copy the bundle with its files, not with links to them")
        if path.is_file() and path.suffix not in ALLOWED_SUFFIXES:
            raise ArtefactError(
                f"{path} does not belong in a bundle: only {' and '.join(ALLOWED_SUFFIXES)} files do",
                "remove it, or convert the weights to safetensors",
            )
