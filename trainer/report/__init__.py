"""The results page: its tables and pictures, made from committed JSON files and from nothing else."""

from trainer.report.definition import ReportDefinition, read_definition
from trainer.report.page_blocks import differing_blocks, page_with_blocks
from trainer.report.rendering import Rendering, render

__all__ = ["Rendering", "ReportDefinition", "differing_blocks", "page_with_blocks", "read_definition", "render"]
