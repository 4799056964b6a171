from __future__ import annotations

from runner.formats.printable import printable


def test_what_a_terminal_would_obey_is_taken_out() -> None:
    assert "\x1b" not in printable("\x1b[2J\x9b31mred\x07")
    assert printable("a\tb\r\nc") == "a\tb\nc"
