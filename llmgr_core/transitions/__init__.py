"""Item-to-item transitions: the no-training floor, and the sparse term of the online ranker."""

from llmgr_core.settings.transitions import TransitionSettings
from llmgr_core.transitions.graph import TransitionGraph

__all__ = ["TransitionGraph", "TransitionSettings"]
