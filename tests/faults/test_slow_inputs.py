"""Without its guards a front would validate slow inputs itself, and leave busy processes behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.api.routes.test_slow_validation import ANSWER_S, Pulse, post, validating_front
from tests.api.validation.slow_inputs import chain
from tests.api.validation.test_pool import dies_with_its_front
from tests.faults.mutate import Change, mutated, never, removed, value

pytestmark = [pytest.mark.slow, pytest.mark.timed]


@pytest.mark.parametrize(
    ("change", "handler", "input"),
    [
        (never("slow-faults-elsewhere"), "ints", ["x"] * 50_000),
        (value("slow-schemas-elsewhere", "size_bytes"), "union", chain(16, "x")),
    ],
)
def test_without_the_processes_slow_inputs_would_delay_others(
    tmp_path: Path, change: Change, handler: str, input: Any
) -> None:
    """The mutation twin of tests/api/routes/test_slow_validation.py."""
    with validating_front(mutated(tmp_path, [change])) as front, Pulse(front.url) as pulse:
        post(front, {"handler": handler, "input": input})
    assert max(pulse.answers_s) > ANSWER_S


def test_without_its_binding_a_process_would_outlive_the_front(tmp_path: Path) -> None:
    """The mutation twin of tests/api/validation/test_pool.py: it sees the end of its stream only later."""
    assert not dies_with_its_front(mutated(tmp_path, [removed("validator-dies-with-front")]))
