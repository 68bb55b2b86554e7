"""The report as one HTML page: protocol, plots, tables; nothing in it is fetched from elsewhere."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console

PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font-family: sans-serif; margin: 2em auto; max-width: 80em; color: #222; background: #fff }}
pre {{ overflow-x: auto; line-height: 1.25 }}
figure {{ margin: 1em 0 }} figure svg {{ max-width: 100%; height: auto }}
dt {{ font-weight: bold }} dd {{ margin: 0 0 .4em 1.5em }}
</style></head>
<body>
<h1>{title}</h1>
<h2>Protocol</h2>
<dl>{protocol}</dl>
<h2>Plots</h2>
{figures}
<h2>Tables</h2>
{tables}
</body></html>
"""


def page(results: Mapping[str, Any], tables: Console, figures: Mapping[str, str], title: str) -> str:
    """The page as text.

    Args:
        results: as in results.json; their protocol is printed.
        tables: a recording console on which the tables were printed.
        figures: SVG text by name; may be empty.
        title: of the page.
    """
    facts = "".join(f"<dt>{html.escape(name)}</dt><dd>{_shown(value)}</dd>" for name, value in results["protocol"].items())
    pictures = "\n".join(f'<figure id="{html.escape(name)}">{_inner(svg)}</figure>' for name, svg in figures.items())
    drawn = pictures or "<p>None: matplotlib was not installed (pip install 'llmgr[plots]').</p>"
    code = tables.export_html(inline_styles=True, code_format="<pre>{code}</pre>", clear=False)
    return PAGE.format(title=html.escape(title), protocol=facts, figures=drawn, tables=code)


def _shown(value: object) -> str:
    return html.escape(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _inner(svg: str) -> str:
    """The drawing without the XML header, which has no place inside a page."""
    return svg[svg.index("<svg") :]
