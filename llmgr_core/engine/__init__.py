"""The semantic engine: a language model that reads item text, and the bridge between its space and that of item IDs."""

from llmgr_core.engine.semantic_engine import SemanticEngine

__all__ = ["SemanticEngine"]
