"""Pure: texts of errors that several processes report."""

from __future__ import annotations

from runner.errors import unknown_handler_text


def test_an_unknown_handler_is_reported_with_the_known_ones() -> None:
    assert unknown_handler_text("nope", ["b", "a"]) == "there is no handler 'nope'; known are: a, b"
    assert unknown_handler_text("nope", []) == "there is no handler 'nope'; known are: none"


def test_a_long_list_of_handlers_is_cut() -> None:
    text = unknown_handler_text("nope", [f"h{number:02}" for number in range(21)])
    assert text.endswith("h18, h19, ...")
