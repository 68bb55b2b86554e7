"""Sentences: splitting, comparing, counting and cutting them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b

# A sentence ends at . ! or ? before a space and something that can begin one, but not after a title's or a unit's full stop,
# and before a number only after a whole word ("No. 8" goes on). A split too many does no harm: a space joins them again.
_END = re.compile(
    r"(?<=[.!?])(?<!\b(?:Dr|Mr|St|No|vs|Sr|Jr|Fl|fl|oz|Oz)\.)(?<!\bMrs\.)(?<!\be\.g\.)(?<!\bi\.e\.) "
    r"(?:(?=[^a-z\d(])|(?<=[a-z]{4}[.!?] )(?<!approx\. )(?=\d))"
)
_NO_SIGNS = str.maketrans("", "", "".join(chr(code) for code in range(128) if not chr(code).isalnum()))
_TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\d_]{1,8}|\d{1,3}|[^\w\s]|_")
_CLAUSE_END = re.compile(r"[,;:](?= )")


def split_sentences(text: str) -> list[str]:
    """Sentences of one line of text; joined by a space they give the text again."""
    return _END.split(text)


def sentence_key(sentence: str) -> str:
    """What makes two sentences the same: letters and digits, case left aside. Empty where there are none."""
    key = sentence.lower().translate(_NO_SIGNS)
    return key if key.isascii() or any(map(str.isalnum, key)) else ""


def sentence_hash(key: str) -> int:
    """64-bit hash of a sentence key, the same on every machine."""
    return int.from_bytes(blake2b(key.encode("utf-8"), digest_size=8).digest(), "big")


def count_tokens(text: str) -> int:
    """Tokens by the project's rule: up to 8 letters, up to 3 digits, one CJK character or one other sign each."""
    return len(_TOKEN.findall(text))


def fit_budget(sentences: Iterable[str], max_tokens: int) -> list[str]:
    """The first sentences that stay within a budget.

    Where the sentence that goes beyond it would leave less than half of the budget in use, its beginning is kept, up to the
    last clause or word that fits.
    """
    used = 0
    kept: list[str] = []
    for sentence in sentences:
        needed = count_tokens(sentence)
        if used + needed > max_tokens:
            if used * 2 < max_tokens and (beginning := _cut(sentence, max_tokens - used)):
                kept.append(beginning)
            break
        used += needed
        kept.append(sentence)
    return kept


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
