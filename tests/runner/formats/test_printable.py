from __future__ import annotations

import json

import pytest

from runner.formats.printable import printable, printable_json

#: Escape, CSI of C1, DEL, the bidirectional controls, the separators, and a lone surrogate.
INTERPRETED = [
    "\x00", "\x07", "\x1b", "\x7f", "\x80", "\x9b", "\x9f", "\u061c", "\u200e", "\u200f", "\u2028", "\u2029",
    "\u202a", "\u202e", "\u2066", "\u2069", "\u206f", "\ud800", "\udfff",
]  # fmt: skip


def test_what_a_terminal_would_obey_is_taken_out() -> None:
    assert "\x1b" not in printable("\x1b[2J\x9b31mred\x07")
    assert printable("a\tb\r\nc") == "a\tb\nc"


@pytest.mark.parametrize("character", INTERPRETED)
def test_no_character_that_a_terminal_interprets_stays(character: str) -> None:
    assert printable(f"a{character}b") == "a\ufffdb"
    text = json.dumps({character: [character]}, ensure_ascii=False, indent=2)
    escaped = printable_json(text)
    assert character not in escaped and json.loads(escaped) == {character: [character]}


def test_text_of_any_script_stays() -> None:
    text = "שלום café \N{ZERO WIDTH JOINER} 👩\u200d🔬 日本"
    assert printable(text) == printable_json(text) == text
