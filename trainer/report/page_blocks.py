"""The generated blocks of a Markdown page; what stands between them is written by hand and never touched."""

from __future__ import annotations

import re
from collections.abc import Mapping

from llmgr_core.errors import InputError

BLOCK = re.compile(r"^<!-- begin: (?P<name>[a-z0-9-]+) -->\n(?P<content>.*?)^<!-- end -->$", re.MULTILINE | re.DOTALL)
MARKER = re.compile(r"^<!-- (?:begin: .*|end) -->$", re.MULTILINE)


def page_with_blocks(page: str, blocks: Mapping[str, str]) -> str:
    """The page with the content of every block replaced.

    Args:
        page: Markdown with blocks ``<!-- begin: NAME -->`` ... ``<!-- end -->``, each marker on a line of its own.
        blocks: new content by name, without a line end at its end.

    Raises:
        InputError: a marker without its partner, a name twice, or names that differ from those of ``blocks``.
    """
    _require_same_names(page, blocks)
    return BLOCK.sub(lambda match: _block(match["name"], blocks[match["name"]]), page)


def differing_blocks(page: str, blocks: Mapping[str, str]) -> list[str]:
    """Names of the blocks whose content is not that of ``blocks``, in the page's order.

    Raises:
        InputError: see page_with_blocks.
    """
    _require_same_names(page, blocks)
    return [match["name"] for match in BLOCK.finditer(page) if match[0] != _block(match["name"], blocks[match["name"]])]


def _block(name: str, content: str) -> str:
    # The empty lines keep Markdown readers from taking the content for part of the comment.
    return f"<!-- begin: {name} -->\n\n{content}\n\n<!-- end -->"


def _require_same_names(page: str, blocks: Mapping[str, str]) -> None:
    names = [match["name"] for match in BLOCK.finditer(page)]
    if len(MARKER.findall(page)) != 2 * len(names):
        raise InputError("a block marker of the page has no partner", "each block is <!-- begin: NAME --> ... <!-- end -->")
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"the page holds block {name!r} twice", "give one of them another name")
        if name not in blocks:
            raise InputError(f"the page holds block {name!r}, which is defined nowhere", "define it beside the page")
    for name in blocks:
        if name not in names:
            raise InputError(
                f"block {name!r} has no place on the page", f"put <!-- begin: {name} --> and <!-- end --> where it belongs"
            )
