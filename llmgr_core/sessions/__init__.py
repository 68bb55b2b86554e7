"""Click sessions and the prediction examples cut from them."""

from llmgr_core.sessions.examples import Examples
from llmgr_core.sessions.sessions import Sessions

__all__ = ["Examples", "Sessions"]
