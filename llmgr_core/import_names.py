"""The import name ``kernels``, which a Hugging Face distribution uses as well.

Ours is part of this project, theirs an optional companion of transformers; both unpack into a directory ``kernels``, so one
environment holds one of them. Two things follow. Where theirs has taken the name, nothing here can work, and importing
``llmgr_core`` says so at once instead of failing later on a missing function. And transformers, which asks the installed
distributions whether a ``kernels`` of a certain version is there, must be told that the one it finds is not meant for it.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Stands in our package's __init__ and in no other's.
OWN_NAME = "SessionGraph"


def require_own_kernels() -> None:
    """Make sure that ``import kernels`` would not find another distribution's package; nothing is imported.

    Raises:
        ImportError: another package has the name.
    """
    spec = find_spec("kernels")
    if spec is None or spec.origin is None:
        return
    if OWN_NAME not in Path(spec.origin).read_text(encoding="utf-8"):
        raise ImportError(
            f"`import kernels` would find {spec.origin}, which is not llmgr's. The distribution `kernels` of "
            "Hugging Face has the same import name: `pip uninstall kernels`, then install llmgr again, or give it an "
            "environment of its own."
        )


def keep_transformers_off_kernels() -> None:
    """Answer "no" to transformers' question whether Hugging Face's ``kernels`` is there.

    Call it before anything else of transformers is imported. The question is put to distribution metadata, which says "yes" for
    ours as soon as its version falls into the range that a transformers release wants, and for theirs also when our files lie
    over it; transformers would then import names that our package does not have.
    """
    import transformers.utils
    from transformers.utils import import_utils

    def no(*_: Any, **__: Any) -> bool:
        return False

    modules: tuple[Any, ...] = (import_utils, transformers.utils)
    for module in modules:
        if hasattr(module, "is_kernels_available"):
            module.is_kernels_available = no
