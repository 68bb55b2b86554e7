"""HTML, entities and printed lists are taken out; what only looks like them stays."""

from __future__ import annotations

import time

import pytest

from llmgr_core.text.characters import repair

LIMIT = 4096


@pytest.mark.parametrize(
    ("ugly", "readable"),
    [
        ("<b>Bold</b> claim", "Bold claim"),
        ("H<sub>2</sub>O", "H2O"),
        ("<p>One</p><p>Two</p>", "One. Two"),
        ("First line<br/>second line", "First line. second line"),
        ("<ul><li>steel</li><li>brass</li></ul>", "steel. brass"),
        ("Sizes:<ul><li>small</li></ul>", "Sizes: small"),
        ("<a href='http://x.com/?a>b' class=\"x\">link</a> text", "link text"),
        ('<div style="a:b">x</div', "x"),
        ("before <!-- hidden <b> --> after", "before after"),
        ("<script>var a = '<b>';</script>Shown<style>p{}</style>", "Shown"),
        ("never ended <script> alert(1)", "never ended"),
        ("Salt &amp; Pepper", "Salt & Pepper"),
        ("Salt &amp;amp;amp; Pepper", "Salt & Pepper"),
        ("&lt;b&gt;Bold&lt;/b&gt;", "Bold"),
        ("&amp;lt;br&amp;gt;x", "x"),
        ("5 &lt; 6 &quot;x&quot; &#8217;", '5 < 6 "x" \''),
        ("hardness < HRC70 and > 5", "hardness < HRC70 and > 5"),
        ("<HRC70 steel", "<HRC70 steel"),
        ("I <3 it", "I <3 it"),
        ("Sander />", "Sander"),
        ("['Dries fast', 'No smell.']", "Dries fast. No smell."),
        ("[\"Won't chip\", 'Red']", "Won't chip. Red"),
        ("['cut off in the mid", "cut off in the mid"),
        ("[3 pack] Towels", "[3 pack] Towels"),
    ],
)
def test_markup_becomes_plain_text(ugly: str, readable: str) -> None:
    text = repair(ugly, LIMIT)
    for _ in range(3):  # nested encodings take another pass, as in TextCleaner.clean
        text = repair(text, LIMIT)
    assert text == readable


HOSTILE = ["<a ", '<a "', "<!--", "<script>", "&amp;", "&ampamp", "['", "\\'", "<p <p", "'\"", ". ", "a@", "<>"]
HOSTILE += ["www.", "a.a", "! ", "\n-", "* ", "a:b<", "-", "é "]


@pytest.mark.parametrize("piece", HOSTILE)
def test_a_megabyte_of_hostile_text_is_handled_in_bounded_time(piece: str) -> None:
    text = "Steel " + piece * (1_000_000 // len(piece))
    start = time.process_time()
    repair(text, LIMIT)
    assert time.process_time() - start < 1.0
