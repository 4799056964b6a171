from __future__ import annotations

from typing import get_args

import pytest

from gpu.devices import xid_codes


@pytest.mark.parametrize(
    ("code", "action"),
    [
        (13, "app"),
        (31, "app"),
        (45, "ignore"),
        (48, "reset"),
        (63, "ignore"),
        (64, "reset"),
        (74, "drain"),
        (79, "lost"),
        (94, "restart"),
        (95, "reset"),
        (119, "reset"),
        # Nobody knows what it means: nothing new is started before a check.
        (100_000, "drain"),
    ],
)
def test_a_code_asks_for_what_the_catalogue_says(code: int, action: str) -> None:
    assert xid_codes.lookup(code).action == action


def test_every_code_has_an_action_and_words_of_its_own() -> None:
    assert {each.action for each in xid_codes._TABLE.values()} == set(get_args(xid_codes.XidAction))
    assert all(each.description for each in xid_codes._TABLE.values())


def test_a_code_is_told_in_words() -> None:
    assert xid_codes.describe(79) == "Xid 79: the GPU has fallen off the bus"
    assert xid_codes.describe(12345) == "Xid 12345: an error of no known kind"
