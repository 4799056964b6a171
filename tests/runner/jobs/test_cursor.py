"""The text by which a list goes on."""

from __future__ import annotations

import pytest

from runner.jobs import cursor


def test_a_cursor_is_read_back() -> None:
    for number in (0, 123, 2**63 - 1):
        assert cursor.decode(cursor.encode(number)) == number


@pytest.mark.parametrize(
    "text", ["", "x", "bjEy!", "MTIz", "bm4", cursor.encode(2**63), cursor.encode(10**30)]
)
def test_a_foreign_cursor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a cursor of this server"):
        cursor.decode(text)
