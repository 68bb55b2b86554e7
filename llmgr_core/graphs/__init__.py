"""Batches of session graphs for the encoders."""

from llmgr_core.graphs.example_loader import ExampleLoader, LoaderState
from llmgr_core.graphs.session_batch import SessionBatch

__all__ = ["ExampleLoader", "LoaderState", "SessionBatch"]
