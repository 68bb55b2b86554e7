"""Everything the results page shows, from its definition and the result files."""

from __future__ import annotations

from dataclasses import dataclass

from llmgr_core.errors import InputError
from trainer.report.definition import (
    BucketsBlock,
    ExperimentBlock,
    FiguresBlock,
    FilesBlock,
    LevelsBlock,
    PictureBlock,
    ReportDefinition,
    TargetsBlock,
)
from trainer.report.experiment_table import experiment_block
from trainer.report.pictures import Picture
from trainer.report.result_files import Provenance, ResultFiles
from trainer.report.tables import buckets_table, figures_table, files_table, levels_table
from trainer.report.targets import targets_table

PICTURES = "pictures"


@dataclass(frozen=True)
class Rendering:
    """Generated content.

    Attributes:
        blocks: Markdown by block name.
        pictures: by file name under ``pictures/``; the name is that of the block.
    """

    blocks: dict[str, str]
    pictures: dict[str, Picture]


def render(definition: ReportDefinition, files: ResultFiles) -> Rendering:
    """Every block as Markdown, and every picture.

    Raises:
        InputError: a file or a value in it is missing; the message names the block.
    """
    blocks: dict[str, str] = {}
    pictures: dict[str, Picture] = {}
    for name, block in definition.block.items():
        try:
            if isinstance(block, PictureBlock):
                if block.optional and not files.exists(block.file):
                    blocks[name] = f"(No picture yet: {block.file} is not there.)"
                    continue
                picture = Picture(block, files)
                picture.source()
                pictures[f"{name}.svg"] = picture
                blocks[name] = f"![{block.alt}]({PICTURES}/{name}.svg)"
            elif isinstance(block, LevelsBlock):
                blocks[name] = levels_table(block, files)
            elif isinstance(block, BucketsBlock):
                blocks[name] = buckets_table(block, files)
            elif isinstance(block, FiguresBlock):
                blocks[name] = figures_table(block, files)
            elif isinstance(block, TargetsBlock):
                blocks[name] = targets_table(block, files)
            elif isinstance(block, ExperimentBlock):
                blocks[name] = experiment_block(block, files)
            elif isinstance(block, FilesBlock):
                blocks[name] = files_table(files, {file: one.reason for file, one in definition.exempt.items()})
        except InputError as error:
            raise InputError(f"block {name!r}: {error.args[0]}", error.hint) from None
        except (KeyError, TypeError) as error:
            raise InputError(f"block {name!r}: a result file lacks {error}", "was it made by an older version?") from None
    return Rendering(blocks, pictures)


def unexplained(definition: ReportDefinition, files: ResultFiles) -> list[str]:
    """What is wrong with how the result files say where they come from; one line each, none when all is well."""
    wrong = []
    for name in files.names():
        missing = Provenance.of(files[name]).missing()
        allowed = definition.exempt[name].missing if name in definition.exempt else ()
        if set(missing) - set(allowed):
            wrong.append(f"{name} does not name its {', '.join(sorted(set(missing) - set(allowed)))}")
        if set(allowed) - set(missing):
            wrong.append(f"{name} is exempt from naming its {', '.join(sorted(set(allowed) - set(missing)))} but does name it")
    wrong += [f"{name} is exempt but does not exist" for name in definition.exempt if not files.exists(name)]
    return wrong
