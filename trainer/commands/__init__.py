"""Subcommands of `llmgr` that this package owns."""
