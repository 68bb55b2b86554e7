"""Made-up names in place of brands: a control for what a language model knows of brands from its own training."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from hashlib import blake2b

CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"
SYLLABLES = 4
# Shorter names, and plain numbers, stand in too many texts as something else ("Vitamin C", "No 7").
SHORTEST_KNOWN = 3
_PIECE = re.compile(r"[^\W_]+")
# Scripts that put no space between words: there a name ends where it ends.
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_GAP = r"[\W_]{0,3}"


def made_up_name(brand: str) -> str:
    """The name that stands for a brand: four syllables, the same on every machine, whatever the spelling's case or signs.

    ``made_up_name("L'Oréal") == made_up_name("L'OREAL")``. Two brands share one by chance in 1 of 24 million pairs.
    """
    number = int.from_bytes(blake2b(brand_key(brand).encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
    letters = []
    for _ in range(SYLLABLES):
        number, consonant = divmod(number, len(CONSONANTS))
        number, vowel = divmod(number, len(VOWELS))
        letters.append(CONSONANTS[consonant] + VOWELS[vowel])
    return "".join(letters).capitalize()


def without_own_brand(text: str, brand: str, *, is_title: bool = False) -> str:
    """A text of an item with its own brand replaced wherever the whole name stands, in any case and with any accents.

    Args:
        text: one line.
        brand: the item's.
        is_title: where the whole name stands nowhere, the words that it begins with are replaced at the start (the first
            one of "Sigma Travel Kit", of "Sigma Beauty").
    """
    pattern = _own(brand)
    if not text or pattern is None:
        return text
    folded, name = _fold(text), made_up_name(brand)
    replaced = _replaced(text, [(found.start(), found.end(), name) for found in pattern.finditer(folded)])
    if not is_title or replaced != text:
        return replaced
    pieces = _PIECE.findall(_fold(brand))
    for count in range(len(pieces) - 1, 0, -1):
        begun = _body(pieces[:count])
        if len("".join(pieces[:count])) >= SHORTEST_KNOWN and (found := re.match(rf"[\W_]*({begun})", folded, re.I)):
            return _replaced(text, [(*found.span(1), name)])
    return text


class KnownBrands:
    """All brands of a catalogue, to be replaced in the texts of any item: many items name their brand in the title alone.

    A known name counts in its own spelling, capitals included, since some are words as well.

    Args:
        names: as the items have them, repaired.
    """

    def __init__(self, names: Iterable[str]) -> None:
        kept = {name for name in names if len(key := brand_key(name)) >= SHORTEST_KNOWN and not key.isdigit()}
        self.names = tuple(sorted(kept))
        bodies: dict[str, set[str]] = {}
        for name in self.names:
            if pieces := _PIECE.findall(_fold(name)):
                first = "" if _UNSPACED.match(pieces[0]) else pieces[0]
                bodies.setdefault(first, set()).add(_body(pieces) + _sign_at_end(name))
        # By the first word, the longest name first; under "" those of scripts without spaces.
        self._patterns = {
            first: re.compile("|".join(sorted(some, key=lambda body: (-len(body), body)))) for first, some in bodies.items()
        }

    def replaced_in(self, text: str) -> str:
        """The text with a made-up name for each known one; of names within names the longest counts."""
        return _replaced(text, [(one.start(), one.end(), made_up_name(one[0])) for one in self._found(text)])

    def named_in(self, text: str) -> set[str]:
        """The keys of all brands that stand in a text."""
        return {brand_key(one[0]) for one in self._found(text)}

    def _found(self, text: str) -> Iterator[re.Match[str]]:
        if not self._patterns:
            return
        folded, end = _fold(text), 0
        unspaced = self._patterns.get("")
        for word in _PIECE.finditer(folded):
            pattern = self._patterns.get(word[0])
            if pattern is not None and word.start() >= end and (found := pattern.match(folded, word.start())):
                end = found.end()
                yield found
            elif unspaced is not None and word.start() >= end:
                for found in unspaced.finditer(folded, word.start(), word.end()):
                    end = found.end()
                    yield found


def brands_of(texts: Callable[[], Iterable[tuple[str, str]]]) -> set[str]:
    """The brands that can be told from words, of a catalogue.

    A name that stands in more items of other brands than it has items itself is a word ("Clear", "Image"), and left out.

    Args:
        texts: gives, each time it is called, (repaired brand or "", title and description) of every item.
    """
    names: dict[str, set[str]] = {}
    own: Counter[str] = Counter()
    for brand, _ in texts():
        if brand:
            names.setdefault(brand_key(brand), set()).add(brand)
            own[brand_key(brand)] += 1
    known = KnownBrands(name for some in names.values() for name in some)
    elsewhere: Counter[str] = Counter()
    for brand, text in texts():
        if brand:
            elsewhere.update(known.named_in(text) - {brand_key(brand)})
    return {name for key, some in names.items() if elsewhere[key] <= own[key] for name in some}


@lru_cache(maxsize=1 << 14)
def _own(brand: str) -> re.Pattern[str] | None:
    pieces = _PIECE.findall(_fold(brand))
    return re.compile(_body(pieces) + _sign_at_end(brand), re.I) if pieces else None


def _body(pieces: list[str]) -> str:
    """A pattern of whole words with up to three signs or spaces between them."""
    before = "" if _UNSPACED.match(pieces[0][0]) else r"(?<![^\W_])"
    after = "" if _UNSPACED.match(pieces[-1][-1]) else r"(?![^\W_])"
    return before + _GAP.join(map(re.escape, pieces)) + after


def _sign_at_end(name: str) -> str:
    """The full stop of "e.l.f." belongs to the name; left behind it would end a sentence."""
    return r"\.?" if name.endswith(".") else ""


def brand_key(name: str) -> str:
    """What makes two spellings one brand: letters and digits, without accents, case left aside."""
    return "".join(_PIECE.findall(_fold(name))).casefold() or name


def _replaced(text: str, spans: list[tuple[int, int, str]]) -> str:
    parts, done = [], 0
    for start, end, name in spans:
        parts += [text[done:start], name]
        done = end
    return "".join([*parts, text[done:]])


def _fold(text: str) -> str:
    """The text without accents, character for character, so that places in one are places in the other."""
    return text if text.isascii() else "".join(map(_base, text))


@lru_cache(maxsize=1 << 12)
def _base(character: str) -> str:
    # A sign is no letter, whatever it is made of ("™"), and what a syllable of Hangul is made of is more than an accent.
    if not character.isalnum() or _UNSPACED.match(character):
        return character
    return unicodedata.normalize("NFKD", character)[0]
