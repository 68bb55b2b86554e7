"""The text cleaner: from an item as its owner describes it to the text that a language model reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from llmgr_core.artefacts.manifest import hash_value
from llmgr_core.data.item import Item
from llmgr_core.errors import ArtefactError
from llmgr_core.settings.text import TextSettings
from llmgr_core.text.brands import KnownBrands, brands_of, without_own_brand
from llmgr_core.text.characters import repair
from llmgr_core.text.fields import brand_name, item_parts, join_sentences
from llmgr_core.text.phrases import PLACEHOLDERS, Phrase, is_phrase, phrases_in, without_brand_new
from llmgr_core.text.repetition import RepeatCounter
from llmgr_core.text.sentences import fit_budget, sentence_hash, sentence_key, split_sentences

# Raised whenever the same item would be cleaned to another text: vectors of the old text are then not taken for new ones.
RULES_VERSION = 1
# A budgeted token is 8 letters at most: this leaves room for sentences that are dropped.
CHARACTERS_PER_TOKEN = 32
# Cleaning is repeated until nothing changes; real text needs two passes, what needs more than this is noise.
MOST_PASSES = 12
# A shorter sentence repeats by chance ("Easy to use.").
SHORTEST_REPEAT = 16


class TextCleaner:
    """Cleans item text; see ``docs/text.md`` for the rules.

    Cleaning is deterministic and idempotent: an item with a cleaned text as its title, and nothing else, is cleaned to that
    text again.

    Args:
        settings: section [text].
        repeated: hashes of sentences that repeat across the catalogue, as ``fit`` finds them.
        brands: of the catalogue, as ``knowing`` finds them; only where the settings want brands anonymised.
    """

    def __init__(self, settings: TextSettings | None = None, repeated: Iterable[int] = (), brands: Iterable[str] = ()) -> None:
        self.settings = settings or TextSettings()
        self.repeated = frozenset(repeated)
        self._known = KnownBrands(brands) if self.settings.brands == "anonymised" else None
        self._limit = CHARACTERS_PER_TOKEN * self.settings.max_tokens

    def knowing(self, items: Callable[[], Iterable[Item]]) -> TextCleaner:
        """A cleaner that knows the brands of a catalogue, to be fitted afterwards; this one where brands stay as they are.

        Args:
            items: gives the catalogue each time it is called.
        """
        if self._known is None:
            return self

        def texts() -> Iterator[tuple[str, str]]:
            for item in items():
                _, title, description = item_parts(item, self._limit, 0)
                yield brand_name(item), f"{title}. {description}"

        return TextCleaner(self.settings, self.repeated, brands_of(texts))

    def fit(self, items: Iterable[Item]) -> TextCleaner:
        """A cleaner with the same settings that also drops what repeats across these items.

        Only sentences of descriptions count, each once an item; memory is bounded whatever the size of the catalogue.
        """
        counter, number = RepeatCounter(), 0
        for item in items:
            number += 1
            if item.description:
                description = self._parts(item, 0)[2]
                keys = {key for one in split_sentences(description) if len(key := sentence_key(one)) >= SHORTEST_REPEAT}
                counter.add(sentence_hash(key) for key in keys)
        threshold = max(self.settings.repeated_items, int(-(-number * self.settings.repeated_share // 1)))
        return TextCleaner(self.settings, counter.at_least(threshold), self._known.names if self._known else ())

    def clean(self, item: Item) -> str | None:
        """The text of an item in one line, structured fields first, or None where nothing readable remains.

        For example ``"Brand: OPI. Category: Beauty > Makeup > Nails. Nail Lacquer, Red. Dries fast."``
        """
        facts, title, description = self._parts(item, self.settings.attributes)
        text = join_sentences([part for part in (*facts, title, description) if part])
        for _ in range(MOST_PASSES):
            settled = self._settle(self._without_known(repair(text, self._limit)))
            if settled == text:
                return text or None
            text = settled
        return None

    def state(self) -> dict[str, Any]:
        """Everything that decides what text comes out, JSON-able."""
        return {
            "rules": RULES_VERSION,
            "settings": self.settings.shaping(),
            "repeated": [f"{value:016x}" for value in sorted(self.repeated)],
            **({"brands": list(self._known.names)} if self._known else {}),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> TextCleaner:
        """The cleaner that ``state()`` described.

        Raises:
            ArtefactError: a state of other rules, or one that is not a state.
        """
        if state.get("rules") != RULES_VERSION:
            raise ArtefactError(
                f"text cleaner with rules {state.get('rules')!r}; this program has rules {RULES_VERSION}",
                "prepare the data again with this version of llmgr",
            )
        try:
            settings = TextSettings.model_validate(state["settings"])
            repeated = [int(value, 16) for value in state["repeated"]]
        except (KeyError, TypeError, ValueError) as error:
            raise ArtefactError(f"not the state of a text cleaner: {error}", "prepare the data again") from None
        return cls(settings, repeated, state.get("brands", ()))

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the state."""
        return hash_value(self.state())

    def _parts(self, item: Item, attributes: int) -> tuple[list[str], str, str]:
        """Facts, title and description, with made-up names for brands where the settings want that."""
        facts, title, description = item_parts(item, self._limit, attributes)
        if self._known is None:
            return facts, title, description
        brand = brand_name(item)

        def anonymised(text: str, is_title: bool = False) -> str:
            return self._without_known(without_own_brand(text, brand, is_title=is_title))

        named = [fact.partition(": ") for fact in facts]
        facts = [f"{name}{colon}{anonymised(value)}" for name, colon, value in named]
        return facts, anonymised(title, is_title=True), anonymised(description)

    def _without_known(self, text: str) -> str:
        return text if self._known is None else self._known.replaced_in(text)

    def _settle(self, text: str) -> str:
        """Drop sentences that say nothing or say it again, and cut to the budget."""
        entries = []
        if self.settings.drop_phrases:
            lowered = text.lower()
            if "high quality" in lowered:
                text = without_brand_new(text)
            entries = phrases_in(lowered)
        sentences = split_sentences(text)
        if len(sentences) == 1:
            kept = sentences if sentence_key(text) else []
        else:
            # an item whose only text are such sentences keeps the first of them
            kept = list(self._informative(sentences, entries)) or [one for one in sentences if sentence_key(one)][:1]
        if len(kept) == 1 and sentence_key(kept[0]) in PLACEHOLDERS:
            return ""
        return " ".join(fit_budget(kept, self.settings.max_tokens))

    def _informative(self, sentences: list[str], entries: list[Phrase]) -> Iterator[str]:
        """Sentences that are neither a seller's phrase, nor repeated across the catalogue, nor said before in this text."""
        seen: set[str] = set()
        used = 0
        for sentence in sentences:
            key = sentence_key(sentence)
            if not key or key in seen or (entries and is_phrase(sentence, entries)):
                continue
            if self.repeated and len(key) >= SHORTEST_REPEAT and sentence_hash(key) in self.repeated:
                continue
            seen.add(key)
            yield sentence
            # every 8 characters of the key are at least one token: nothing further can be within the budget
            used += len(key)
            if used > 8 * self.settings.max_tokens:
                return
