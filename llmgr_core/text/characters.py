"""Repairing the characters of a text: wrong decoding, control characters, ornaments, addresses, white space."""

from __future__ import annotations

import re

import ftfy

from llmgr_core.text.markup import SENTENCE_BREAK, open_list, strip_markup

# NFC, not NFKC: "2" is not what "²" says. Entities are markup's business.
_FTFY = ftfy.TextFixerConfig(unescape_html=False, normalization="NFC", explain=False)
_UNWRITABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1d\x1f\x7f-\x84\x86-\x9f\u00ad\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    "\ufeff\ufff0-\uffff\ud800-\udfff\ue000-\uf8ff\ufdd0-\ufdef\U000e0000-\U0010ffff]"
)
_ADDRESS = re.compile(
    r"(?:\bhttps?://|\bwww\.)[^\s<>\"\x1e]*[^\s<>\".,;:!?)\]\x1e]|\b[\w.+-]{1,64}@[\w-]{1,64}(?:\.[\w-]{2,24}){1,4}\b"
)
_BULLET = re.compile(r"\s*[•●■◆►▶▪▸◦‣★☆✓✔✅✦❖➤➢]+\s*|\n\s*[-*+·–]\s+|\n\s*\n")
_ORNAMENT = re.compile(r"[*=_~#|^]{2,}|-{3,}|<>|[<>]{2,}|\s/>(?=\s|\Z)")
_SHOUT = re.compile(r"([!?,;:])(?:\s?\1)+")
# What is left of a non-breaking space in Latin-1 after another program has dropped its second byte.
_STRAY = re.compile(r"(?<![A-Z])Â(?=\s|\Z)")
_DOTS = re.compile(r"\.{4,}|…")
_TWO_DOTS = re.compile(r"(?<!\.)\.\.(?!\.)")
# A sentence end without a space, found by its sign first: "packaging.Sturdy".
_GLUED = re.compile(r"\.(?<=[a-z)].)(?=[A-Z][a-z])|[!?](?<=[a-z)].)(?=[A-Z])")
_SPACE_BEFORE = re.compile(r"\s+(?=[,;!?](?:\s|\Z)|\.(?:\s|\Z))")
_SENTENCE_BREAKS = re.compile(rf"[\s.,;:{SENTENCE_BREAK}]*{SENTENCE_BREAK}[\s{SENTENCE_BREAK}]*")
# ASCII text with none of these passes every step unchanged; most cleaned text does, and looking is quicker than replacing.
_SUSPECT = ("<", "&", "@", "://", "www.", "  ", "..", "!!", "??", ",,", ";;", "::", " .", " ,", " ;", " :", " !", " ?")


def repair(text: str, limit: int) -> str:
    """One line of readable characters.

    Args:
        text: anything, also lone surrogates and control characters.
        limit: characters kept; 16 times as many are looked at, so that the time is bounded whatever comes in.

    Returns:
        Text with single spaces; empty if nothing is left.
    """
    if len(text) > 16 * limit:
        text = text[: 16 * limit]
    if _is_plain(text):
        return text[:limit].rstrip()
    text = strip_markup(open_list(text.replace(SENTENCE_BREAK, " ")))
    if len(text) > limit:
        text = text[:limit]
    if not text.isascii():
        text = ftfy.fix_text(_UNWRITABLE.sub("", text), _FTFY)
        text = _BULLET.sub(SENTENCE_BREAK, _STRAY.sub("", text))
    elif "\n" in text:
        text = _BULLET.sub(SENTENCE_BREAK, text)
    text = _UNWRITABLE.sub("", text)
    if "@" in text or "://" in text or "www." in text:
        text = _ADDRESS.sub("", text)
    text = _ORNAMENT.sub(" ", text)
    if ".." in text or "…" in text:
        text = _TWO_DOTS.sub(".", _DOTS.sub("...", text))
    text = _SHOUT.sub(r"\1", text)
    if SENTENCE_BREAK in text:
        text = _SENTENCE_BREAKS.sub(_end_sentence, text.strip(SENTENCE_BREAK + " \t\n"))
    text = _GLUED.sub(r"\g<0> ", text)
    return _SPACE_BEFORE.sub("", " ".join(text.split()))


def _is_plain(text: str) -> bool:
    if not (text.isascii() and text.isprintable()) or any(sign in text for sign in _SUSPECT):
        return False
    if text[:1] in {" ", "["} or text[-1:] == " " or text[:1] in ".,;:!?":
        return False
    return _GLUED.search(text) is None and _ORNAMENT.search(text) is None


def _end_sentence(match: re.Match[str]) -> str:
    """A full stop where a list element or a paragraph ended, unless something ends there already."""
    before = match.string[match.start() - 1 : match.start()]
    if before in {"!", "?"} or not before:
        return " "
    return ": " if ":" in match[0] else ". "
