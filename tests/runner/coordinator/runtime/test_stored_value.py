"""Damaged values count as absent."""

from __future__ import annotations

import pytest

from runner.coordinator.runtime.stored_value import parse_value


def test_a_value_is_parsed() -> None:
    assert parse_value("count", b"7", int) == 7 and parse_value("count", None, int) is None


def test_a_damaged_value_is_absent_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    assert parse_value("count", b"\xc1", int) is None
    assert "count is damaged" in caplog.text
