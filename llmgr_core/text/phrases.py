"""Known sentences of sellers that say nothing about the item.

Each entry is a literal that must stand in the lower-cased sentence, which is quick to look for, and where the literal alone
could mean something else, a pattern that must be found as well.
"""

from __future__ import annotations

import re

# A longer sentence says something beside the phrase.
LONGEST_WORDS = 30

_LITERALS = """
100% satisfaction|satisfaction guarantee|satisfaction is guaranteed|satisfaction is our|your satisfaction|money back guarantee
money-back guarantee|full refund|free shipping|fast shipping|free delivery|same day shipping|ships same day|ships within
customer service|customer support|customer care|feel free to contact|please contact|contact us|email us|e-mail us|give us a call
visit our|check out our|see our other|our store front|add to cart|buy now|order now|order yours|order today|get yours|click here
click on|click the|scroll up|limited time|don't miss|buy with confidence|shop with confidence|risk free|risk-free
100% brand new|brand new and high quality|brand new & high quality|please allow|different monitors|monitor settings
lifetime warranty|year warranty|month warranty|day warranty|limited warranty|manufacturer warranty|manufacturer's warranty
warranty against|proof of purchase|registered trademark|all rights reserved|trademarks of|trademark of|prop 65|proposition 65
state of california|p65warnings|not been evaluated by the food|not intended to diagnose|leave us|positive feedback
thank you for|thanks for looking|thanks for shopping|welcome to our|authorized dealer|authorized reseller
authorized permission is required|family-owned since|family owned since|is headquartered in|the company is based in
quality is always our|best price|lowest price|for more information
"""

_PATTERNS = {
    "please allow": r"please allow .{0,60}(?:differ|error|deviation|day|week|measurement)",
    "visit our": r"visit our .{0,30}(?:web|site|store|shop|page|amazon)",
    "check out our": r"check out our .{0,30}(?:other|store|shop|web|full|entire)",
    "click on": r"click on .{0,40}(?:link|button|name|brand|store|above|below)",
    "click the": r"click the .{0,40}(?:link|button|name|brand|store|above|below|cart)",
    "limited time": r"limited time (?:offer|only|deal|sale|price|discount)",
    "leave us": r"leave us .{0,30}(?:feedback|review|message)",
    "thank you for": r"thank you for (?:your |visiting|shopping|looking|choosing|purchasing|buying|considering)",
    "best price": r"(?:at|for|with) (?:the |our )?best price",
    "please contact": r"please contact (?:us|our|the seller|me|customer)",
    "customer service": r"(?:our|us|excellent|great|best|friendly|contact|hour|professional).{0,40}customer service",
}

# What stands in a field that nobody filled in.
_UNFILLED = """
na|nan|none|null|unknown|undefined|nodescription|nodescriptionavailable|notavailable|notapplicable|notspecified|tbd
productdescription|description|seedescription|nobrand|unbranded|doesnotapply
"""


def _words(lines: str) -> list[str]:
    return [word for line in lines.strip().splitlines() for word in line.split("|")]


PLACEHOLDERS = frozenset(_words(_UNFILLED))


def _entries() -> list[tuple[str, re.Pattern[str] | None]]:
    return [(literal, re.compile(_PATTERNS[literal]) if literal in _PATTERNS else None) for literal in _words(_LITERALS)]


_ENTRIES = _entries()


def phrases_in(lowered: str) -> list[tuple[str, re.Pattern[str] | None]]:
    """Entries whose literal stands somewhere in a lower-cased text; empty for most texts."""
    return [entry for entry in _ENTRIES if entry[0] in lowered]


def is_phrase(sentence: str, entries: list[tuple[str, re.Pattern[str] | None]]) -> bool:
    """Whether one of the entries makes this sentence boilerplate."""
    lowered = sentence.lower()
    for literal, pattern in entries:
        if literal in lowered and (pattern is None or pattern.search(lowered)):
            return lowered.count(" ") < LONGEST_WORDS
    return False
