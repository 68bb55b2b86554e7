"""Characters are repaired without loss of what can be read."""

from __future__ import annotations

import pytest

from llmgr_core.text.characters import repair

LIMIT = 4096


@pytest.mark.parametrize(
    ("ugly", "readable"),
    [
        ("BAFX ProductsÂ\u00a0- Meter", "BAFX Products - Meter"),
        ("ux0002 Â SMA Male", "ux0002 SMA Male"),
        ("Â± 0.1 Accuracy", "± 0.1 Accuracy"),
        ("LancÃ´me mascara", "Lancôme mascara"),
        ("donâ€™t", "don't"),
        ("“quoted” ’n", '"quoted" \'n'),
        ("nul\x00 and bell\x07 and bom\ufeff", "nul and bell and bom"),
        ("zero\u200bwidth soft\u00adhyphen", "zerowidth softhyphen"),
        ("lone \ud83d surrogate", "lone surrogate"),
        ("tab\tand\nnew line\u2028x", "tab and new line x"),
        ("ｆｕｌｌ　width", "full width"),
        ("10 m² of ½ inch", "10 m² of ½ inch"),
        ("cafe\u0301", "café"),
        ("日本語の説明", "日本語の説明"),
        ("مرحبا بالعالم", "مرحبا بالعالم"),
        ("**NEW** ===== look!!!! ~~~", "NEW look!"),
        ("units.. the", "units. the"),
        ("wait..... what", "wait... what"),
        ("a cinch.Sturdy plastic", "a cinch. Sturdy plastic"),
        ("colors available?PLA comes", "colors available? PLA comes"),
        ("0.5 fl.oz v2.0 U.S.A", "0.5 fl.oz v2.0 U.S.A"),
        ("• steel • brass", "steel. brass"),
        ("posts . Overall , it", "posts. Overall, it"),
        ("see http://example.com/a?b=1. Then www.shop.com, or a.b@c.example now", "see. Then, or now"),
        ("3 @ 5 dollars", "3 @ 5 dollars"),
    ],
)
def test_characters_are_repaired(ugly: str, readable: str) -> None:
    assert repair(ugly, LIMIT) == readable


def test_text_without_anything_readable_is_empty() -> None:
    assert repair("\x00\x01\u200b \n\t", LIMIT) == ""
