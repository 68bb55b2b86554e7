"""The bundle: everything a ranking host needs, in one directory that cannot execute code."""

from llmgr_core.bundle.bundle import Bundle, EngineReference
from llmgr_core.bundle.writing import write_bundle

__all__ = ["Bundle", "EngineReference", "write_bundle"]
