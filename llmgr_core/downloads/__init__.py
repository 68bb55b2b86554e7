"""Fetching models and data sets, each from its own official place, into one cache directory."""

from llmgr_core.downloads.places import data_directory, home, model_directory

__all__ = ["data_directory", "home", "model_directory"]
