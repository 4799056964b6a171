"""Whether work is accepted, and what the refusal says."""

from __future__ import annotations

import pytest

from runner.coordinator.runtime.submission_gate import SubmissionGate
from runner.errors import ShuttingDown, StoreGone


def test_an_open_gate_refuses_nothing() -> None:
    SubmissionGate().check_open()


def test_a_closed_gate_says_that_the_server_shuts_down() -> None:
    gate = SubmissionGate()
    gate.close()
    with pytest.raises(ShuttingDown):
        gate.check_open()


def test_the_first_reason_stays() -> None:
    gate = SubmissionGate()
    gate.close(StoreGone("the file was removed"))
    gate.close()
    with pytest.raises(StoreGone, match="the file was removed"):
        gate.check_open()
