"""``llmgr report``: the results page, from committed JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llmgr_core.errors import InputError

if TYPE_CHECKING:
    from trainer.report.pictures import Picture

FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command("report")
@click.option("--page", "page_path", type=FILE, default=Path("docs/results.md"), show_default=True, help="Markdown page.")
@click.option(
    "--results", type=FOLDER, default=Path("benchmarks/results"), show_default=True, help="Directory of the JSON files."
)
@click.option("--html", "html_path", type=FILE, help="Also write the page as one HTML file, pictures inside.")
@click.option("--check", is_flag=True, help="Write nothing; end with status 1 and name every block that differs.")
def command(page_path: Path, results: Path, html_path: Path | None, check: bool) -> None:
    """Make every table and picture of the results page from the JSON files under benchmarks/results.

    The page holds blocks <!-- begin: NAME --> ... <!-- end -->; what stands between blocks is written by hand and left alone.
    What each block shows is said in the TOML file beside the page (docs/results.toml). Pictures go to pictures/ beside it.
    """
    from trainer.report import differing_blocks, page_with_blocks, read_definition, render
    from trainer.report.rendering import PICTURES, unexplained
    from trainer.report.result_files import ResultFiles

    definition = read_definition(page_path.with_suffix(".toml"))
    files = ResultFiles(results)
    rendering = render(definition, files)
    try:
        page = page_path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{page_path} cannot be read: {error}", "name the page with --page") from None
    folder = page_path.parent / PICTURES
    wrong = unexplained(definition, files)
    if check:
        wrong += [f"block {name} of {page_path} differs from the JSON" for name in differing_blocks(page, rendering.blocks)]
        wrong += [
            f"picture {folder / name} differs from the JSON"
            for name, picture in rendering.pictures.items()
            if not picture.is_drawn_in(folder / name)
        ]
        for line in wrong:
            click.echo(f"llmgr report: {line}", err=True)
        if wrong:
            click.echo("  hint: `llmgr report` makes blocks and pictures again", err=True)
            raise SystemExit(1)
        click.echo(json.dumps({"page": str(page_path), "blocks": len(rendering.blocks), "pictures": len(rendering.pictures)}))
        return
    changed = differing_blocks(page, rendering.blocks)
    page = page_with_blocks(page, rendering.blocks)
    drawings = {}
    for name, picture in rendering.pictures.items():
        if not picture.is_drawn_in(folder / name):
            _write(folder / name, _drawn(picture))
            changed.append(f"{PICTURES}/{name}")
        drawings[name] = (folder / name).read_text(encoding="utf-8")
    _write(page_path, page)
    if html_path is not None:
        from trainer.report.web_page import web_page

        _write(html_path, web_page(page, drawings, page_path=page_path, html_path=html_path))
    for line in wrong:
        click.echo(f"llmgr report: {line}", err=True)
    click.echo(json.dumps({"page": str(page_path), "changed": changed, "html": str(html_path) if html_path else None}))


def _drawn(picture: Picture) -> str:
    try:
        return picture.draw()
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        raise InputError("pictures need matplotlib, which is not installed", "pip install 'llmgr[plots]'") from None


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}", "check the path") from None
