"""Item text made fit for a language model: cleaned, structured fields first, within a token budget."""

from llmgr_core.text.cleaner import TextCleaner

__all__ = ["TextCleaner"]
