"""The words around items and sessions. A change here changes what every vector means: raise PROMPT_VERSION with it."""

from __future__ import annotations

PROMPT_VERSION = "1"

# The item text prompt, whose pooled hidden state is the stored vector e_v. An encoder was trained on bare sentences; a causal
# model is told what it reads, so that the first tokens, which see nothing before them, are not the item's own.
ITEM_TEXT_BEFORE_CAUSAL = "Product description: "
