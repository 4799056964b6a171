from __future__ import annotations

import pytest

from gpu.memory.enforcement import BACKENDS, MARGIN_BYTES, MIB, BackendName, cap_bytes

G = 1 << 30


@pytest.mark.parametrize(
    ("name", "grant", "context", "expected"),
    [
        ("fraction", 4 * G, 300 * MIB, 4 * G - 300 * MIB - MARGIN_BYTES),
        ("fraction", 4 * G, None, 4 * G - MARGIN_BYTES),
        ("fraction", 100 * MIB, 300 * MIB, 0),
        ("fraction", 0, 300 * MIB, None),
        ("watchdog", 4 * G, 300 * MIB, None),
        ("none", 4 * G, 300 * MIB, None),
    ],
)
def test_torch_may_reserve_the_grant_without_the_context(
    name: BackendName, grant: int, context: int | None, expected: int | None
) -> None:
    assert cap_bytes(BACKENDS[name], grant, context) == expected


def test_each_says_what_it_does() -> None:
    assert {name: (each.caps_allocator, each.kills_over_grant) for name, each in BACKENDS.items()} == {
        "fraction": (True, True),
        "watchdog": (False, True),
        "none": (False, False),
    }
    assert all(each.promise for each in BACKENDS.values())
