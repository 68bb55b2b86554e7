"""Known sentences of sellers that say nothing about the item.

Each entry is a literal that must stand in the lower-cased sentence, which is quick to look for, and where the literal alone
could mean something else, a pattern that must be found as well.
"""

from __future__ import annotations

import re

# A longer sentence says something beside the phrase.
LONGEST_WORDS = 30

# Before the colon a part that the literals of the line share: most texts hold none of them.
_LITERALS = """
satisf: 100% satisfaction|satisfaction guarantee|satisfaction is guaranteed|satisfaction is our|your satisfaction
back guarantee: money back guarantee|money-back guarantee
refund: full refund
shipping: free shipping|fast shipping|same day shipping
delivery: free delivery
ships: ships same day|ships within
customer: customer service|customer support|customer care
contact: feel free to contact|please contact|contact us
mail us: email us|e-mail us
call: give us a call
our: visit our|check out our|see our other|our store front|welcome to our|quality is always our
add to: add to cart
now: buy now|order now
order: order yours|order today
get yours: get yours
click: click here|click on|click the
scroll: scroll up
limited: limited time|limited warranty
don't miss: don't miss
confidence: buy with confidence|shop with confidence
risk: risk free|risk-free
please allow: please allow
monitor: different monitors|monitor settings
warranty: lifetime warranty|year warranty|month warranty|day warranty|manufacturer warranty|manufacturer's warranty
warranty against: warranty against
proof of: proof of purchase
trademark: registered trademark|trademarks of|trademark of
reserved: all rights reserved
prop: prop 65|proposition 65
california: state of california
p65: p65warnings
evaluated: not been evaluated by the food
diagnose: not intended to diagnose
feedback: positive feedback
leave us: leave us
thank: thank you for|thanks for looking|thanks for shopping
authorized: authorized dealer|authorized reseller|authorized permission is required
family: family-owned since|family owned since
headquartered: is headquartered in
company: the company is based in
price: best price|lowest price
more info: for more information
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


Phrase = tuple[str, re.Pattern[str] | None]


def _entries() -> list[tuple[str, list[Phrase]]]:
    groups = []
    for line in _LITERALS.strip().splitlines():
        shared, literals = line.split(": ", 1)
        patterns = [(one, re.compile(_PATTERNS[one]) if one in _PATTERNS else None) for one in literals.split("|")]
        groups.append((shared, patterns))
    return groups


_ENTRIES = _entries()
_BRAND_NEW = re.compile(r"(?:100 ?% ?)?\bbrand[ -]new (?:and|&|with) high quality[.!,;]?\s*", re.I)


def phrases_in(lowered: str) -> list[Phrase]:
    """Entries that may stand somewhere in a lower-cased text; empty for most texts."""
    return [entry for shared, entries in _ENTRIES if shared in lowered for entry in entries if entry[0] in lowered]


def without_brand_new(text: str) -> str:
    """Drop "100% brand new and high quality", which sellers put before a first sentence without ending it."""
    return _BRAND_NEW.sub("", text)


def is_phrase(sentence: str, entries: list[Phrase]) -> bool:
    """Whether one of the entries makes this sentence boilerplate."""
    lowered = sentence.lower()
    for literal, pattern in entries:
        if literal in lowered and (pattern is None or pattern.search(lowered)):
            return lowered.count(" ") < LONGEST_WORDS
    return False
