"""The one command, ``llmgr``: it finds its subcommands through the entry-point group ``llmgr.commands``."""
