"""The results page as one HTML file that needs nothing else."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Mapping
from pathlib import Path

from markdown_it import MarkdownIt

PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font-family: sans-serif; margin: 2em auto; max-width: 76em; padding: 0 1em; line-height: 1.45;
       color: #222; background: #fff }}
table {{ border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums }}
th, td {{ border-bottom: 1px solid #ddd; padding: .25em .6em; text-align: left; vertical-align: top }}
td + td {{ white-space: nowrap }} td code {{ white-space: normal }}
pre {{ background: #f6f6f6; padding: .6em; overflow-x: auto }}
svg {{ max-width: 100%; height: auto }} figure {{ margin: 1em 0 }}
</style></head>
<body>
{body}
</body></html>
"""
IMAGE = re.compile(r'<img src="pictures/(?P<name>[^"]+)" alt="(?P<alt>[^"]*)"\s*/?>')
LINK = re.compile(r'href="(?P<target>(?!https?:|#)[^"]+)"')
HEADING = re.compile(r"<h1>(.*?)</h1>")


def web_page(page: str, drawings: Mapping[str, str], *, page_path: Path, html_path: Path) -> str:
    """The page with its pictures inside; links to files go on pointing at them from where the HTML file will stand.

    Args:
        page: Markdown.
        drawings: SVG text by file name under ``pictures/``.
        page_path, html_path: where both stand.
    """
    # Comments are markers of ours, not content; tables are not part of CommonMark itself.
    body = MarkdownIt("commonmark", {"html": True}).enable("table").render(page)

    def picture(match: re.Match[str]) -> str:
        drawing = drawings.get(match["name"])
        if drawing is None:
            return match[0]
        inner = drawing[drawing.index("<svg") :]
        return f'<figure role="img" aria-label="{match["alt"]}">{inner}</figure>'

    def link(match: re.Match[str]) -> str:
        target, mark, anchor = str(match["target"]).partition("#")
        place = os.path.relpath(str(page_path.parent / target), str(html_path.parent))
        return f'href="{place}{mark}{anchor}"'

    # Links first: the drawings hold links of their own.
    body = IMAGE.sub(picture, LINK.sub(link, body))
    heading = HEADING.search(body)
    return PAGE.format(title=html.escape(heading[1] if heading else "Results"), body=body)
