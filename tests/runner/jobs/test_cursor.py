"""The text by which a list goes on."""

from __future__ import annotations

import pytest

from runner.jobs import cursor


def test_a_cursor_is_read_back() -> None:
    assert cursor.decode(cursor.encode(123)) == 123


@pytest.mark.parametrize("text", ["", "x", "bjEy!", "MTIz", "bm4"])
def test_a_foreign_cursor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a cursor of this server"):
        cursor.decode(text)
