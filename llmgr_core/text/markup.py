"""Taking HTML, and lists printed as text, out of a string.

Regular expressions over the known element names, not a parser: catalogue text holds "< 5 V", "<>" and tags cut off in the
middle far more often than valid documents, and the time must stay linear in the text.
"""

from __future__ import annotations

import html
import re

# Known element names only: "<HRC70" is no tag.
_NAMES = (
    "a|abbr|acronym|address|area|article|aside|audio|b|base|basefont|bdi|bdo|big|blockquote|body|br|button|canvas|caption|center"
    "|cite|code|col|colgroup|data|dd|del|details|dfn|dialog|dir|div|dl|dt|em|embed|fieldset|figcaption|figure|font|footer|form"
    "|frame|frameset|h[1-6r]|head|header|html|i|iframe|img|input|ins|kbd|label|legend|li|link|main|map|mark|menu|meta|nav"
    "|noframes|noscript|object|ol|optgroup|option|p|param|picture|pre|q|s|samp|script|section|select|small|source|span|strike"
    "|strong|style|sub|summary|sup|svg|table|tbody|td|template|textarea|tfoot|th|thead|time|title|tr|tt|u|ul|var|video|wbr"
)
# Elements that end a line of text: what stands before and after them are two sentences.
_BREAKING = re.compile(
    "address|article|aside|blockquote|br|caption|dd|div|dl|dt|figure|footer|form|h[1-6r]|header|li|main|nav|ol|p|pre|section|table"
    "|td|th|tr|ul",
    re.I,
)
_ATTRIBUTES = r"""(?:\s(?:[^<>"']|"[^"<]{0,2000}"|'[^'<]{0,2000}'|["'])*|/)?"""
_INVISIBLE = re.compile(
    r"<!--.*?(?:-->|\Z)|<!\[CDATA\[|\]\]>|<[!?][a-z][^<>]*>|<(script|style|svg)\b[^<>]*>.*?(?:</\1\s*>|\Z)", re.I | re.S
)
_TAG = re.compile(rf"</?({_NAMES}|[a-z]+:[a-z]+)\b{_ATTRIBUTES}(?:>|\Z)", re.I)
# "&amp;amp;lt;": encoded again each time some system took it for plain text.
_ENCODED_AGAIN = re.compile(r"&(?:(?:amp|#0*38|#x0*26);)+", re.I)
_LIST_START = re.compile(r"\s*\[\s*(['\"])")
_LIST_COMMA = re.compile(r"""['"]\s*,\s*['"]""")

# Stands for "a sentence ends here" until the characters have been repaired; a control character, so no text holds it by then.
SENTENCE_BREAK = "\x1e"


def strip_markup(text: str) -> str:
    """Remove tags, comments, scripts and entities; a block element becomes a SENTENCE_BREAK."""
    if "&" in text:
        text = html.unescape(_ENCODED_AGAIN.sub("&", text))
    if "<" in text:
        text = _TAG.sub(_replacement, _INVISIBLE.sub(" ", text))
    return text


def open_list(text: str) -> str:
    """A list printed as text, ``"['a', 'b']"``, as its elements, each ended by a SENTENCE_BREAK; other text as it is."""
    if "[" not in text[:64] or not _LIST_START.match(text):
        return text
    body = text.strip().removeprefix("[").removesuffix("]").strip()
    body = _LIST_COMMA.sub(SENTENCE_BREAK, body).strip("'\"")
    return body.replace("\\'", "'").replace('\\"', '"').replace("\\n", SENTENCE_BREAK).replace("\\t", " ")


def _replacement(match: re.Match[str]) -> str:
    # inline elements may stand inside a word: H<sub>2</sub>O
    return SENTENCE_BREAK if _BREAKING.fullmatch(match[1]) else ""
