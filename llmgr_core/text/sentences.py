"""Sentences: splitting, comparing, counting and cutting them."""

from __future__ import annotations

import re
from hashlib import blake2b

# A sentence ends at . ! or ? before white space and something that can begin one. Not after a title or a unit's full stop; a
# split too many does no harm, since sentences are joined again by one space.
_END = re.compile(
    r"(?<=[.!?])(?<!\b(?:Dr|Mr|St|No|vs|Sr|Jr|Fl|fl|oz|Oz)\.)(?<!\bMrs\.)(?<!\be\.g\.)(?<!\bi\.e\.) (?=[^a-z\d(])"
)
_NOT_ALNUM = re.compile(r"[\W_]+")
_TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\d_]{1,8}|\d{1,3}|[^\w\s]|_")
_CLAUSE_END = re.compile(r"[,;:](?= )")


def split_sentences(text: str) -> list[str]:
    """Sentences of one line of text; joined by a space they give the text again."""
    return _END.split(text)


def sentence_key(sentence: str) -> str:
    """What makes two sentences the same: letters and digits, case left aside."""
    return _NOT_ALNUM.sub("", sentence).lower()


def sentence_hash(key: str) -> int:
    """64-bit hash of a sentence key, the same on every machine."""
    return int.from_bytes(blake2b(key.encode("utf-8"), digest_size=8).digest(), "big")


def count_tokens(text: str) -> int:
    """Tokens by the project's rule: up to 8 letters, up to 3 digits, one CJK character or one other sign each."""
    return len(_TOKEN.findall(text))


def fit_budget(sentences: list[str], max_tokens: int) -> list[str]:
    """The first sentences that stay within a budget.

    Where the sentence that goes beyond it would leave less than half of the budget in use, its beginning is kept, up to the
    last clause or word that fits.
    """
    used = 0
    for number, sentence in enumerate(sentences):
        needed = count_tokens(sentence)
        if used + needed > max_tokens:
            kept = sentences[:number]
            if used * 2 < max_tokens:
                beginning = _cut(sentence, max_tokens - used)
                if beginning:
                    kept.append(beginning)
            return kept
        used += needed
    return sentences


def _cut(sentence: str, max_tokens: int) -> str:
    end = 0
    for number, token in enumerate(_TOKEN.finditer(sentence), start=1):
        if number > max_tokens:
            break
        end = token.end()
    part = sentence[:end]
    if end < len(sentence) and not sentence[end].isspace():
        # never a part of a word, except of one that alone is beyond the budget
        part = part[: part.rfind(" ")] if " " in part else part
    clauses = list(_CLAUSE_END.finditer(part, len(part) // 2))
    return (part[: clauses[-1].start()] if clauses else part).rstrip(" ,;:-")
