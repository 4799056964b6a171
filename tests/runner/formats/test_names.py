"""Pure: names of handlers, queues and tenants."""

from __future__ import annotations

import re

import pytest

from runner.formats.names import NAME_PATTERN, is_name


@pytest.mark.parametrize(
    ("value", "is_valid"),
    [
        ("paint-image_2.b", True),
        ("x" * 100, True),
        ("x" * 101, False),
        ("", False),
        ("a b", False),
        ("a/b", False),
        ("ä", False),
        (7, False),
        (None, False),
    ],
)
def test_names_are_short_and_plain(value: object, is_valid: bool) -> None:
    assert is_name(value) is is_valid
    assert is_valid is (isinstance(value, str) and re.search(NAME_PATTERN, value) is not None)


def test_a_name_does_not_end_with_a_line_feed() -> None:
    assert not is_name("paint\n")
