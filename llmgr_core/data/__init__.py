"""Catalogues and click logs: reading them, splitting them, and the prepared data set."""

from llmgr_core.data.dataset import Dataset
from llmgr_core.data.item import Item

__all__ = ["Dataset", "Item"]
