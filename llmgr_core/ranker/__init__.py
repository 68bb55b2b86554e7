"""The online ranker: item rows made of ID and text, and the ranking of one session against all of them.

What a ranking host uses (``RankerRuntime``, ``Snapshot``, ``Ranking``) needs NumPy alone; the trainable modules are
imported from ``llmgr_core.ranker.item_transform`` and ``llmgr_core.ranker.online``.
"""

from llmgr_core.ranker.folded_transform import FoldedTransform
from llmgr_core.ranker.ranking import Ranking
from llmgr_core.ranker.runtime import RankerRuntime, RowChange
from llmgr_core.ranker.scoring import ScoringSettings
from llmgr_core.ranker.snapshot import Snapshot

__all__ = ["FoldedTransform", "RankerRuntime", "Ranking", "RowChange", "ScoringSettings", "Snapshot"]
