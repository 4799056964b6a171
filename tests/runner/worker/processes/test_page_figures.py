"""What of an executor's page is believed."""

from __future__ import annotations

import pytest

from runner.worker.processes.page_figures import NO_FIGURES, PageFigures, believe

NOW = 100.0
RUNNING = PageFigures(3, 90.0, 2, 95.0)
GARBAGE = PageFigures(1 << 60, 8e9, 1 << 61, 7e9)


@pytest.mark.parametrize(
    ("known", "read", "believed"),
    [
        # What an executor writes.
        (NO_FIGURES, NO_FIGURES, NO_FIGURES),
        (NO_FIGURES, PageFigures(1, 99.0, 0, 99.0), PageFigures(1, 99.0, 0, 99.0)),
        (RUNNING, PageFigures(3, 90.0, 3, 96.0), PageFigures(3, 90.0, 3, 96.0)),
        (RUNNING, PageFigures(5, 98.0, 4, 98.0), PageFigures(5, 98.0, 4, 98.0)),
        # The time of the next start is written before its count.
        (RUNNING, PageFigures(3, 99.0, 3, 99.0), PageFigures(3, 90.0, 3, 99.0)),
        # What it can't have written.
        (RUNNING, GARBAGE, RUNNING),
        (RUNNING, NO_FIGURES, RUNNING),
        (RUNNING, PageFigures(6, 99.0, 5, 99.0), PageFigures(3, 90.0, 2, 99.0)),
        # Written over before the start was seen: an attempt runs.
        (PageFigures(2, 80.0, 2, 80.0), GARBAGE, PageFigures(3, NOW, 2, 80.0)),
        (NO_FIGURES, GARBAGE, PageFigures(3, NOW, 0, 0.0)),
        (RUNNING, PageFigures(4, 101.0, 2, 101.0), PageFigures(4, NOW, 2, 95.0)),
        (RUNNING, PageFigures(4, 1.0, 2, 1.0), PageFigures(4, NOW, 2, 95.0)),
        (RUNNING, PageFigures(3, 90.0, 4, 95.0), RUNNING),
    ],
)
def test_a_page_is_believed_only_as_far_as_it_can_be_true(
    known: PageFigures, read: PageFigures, believed: PageFigures
) -> None:
    assert believe(known, read, ended_count=2, assigned_count=5, now_mono=NOW) == believed


def test_a_page_written_over_between_attempts_starts_none() -> None:
    known = PageFigures(2, 80.0, 2, 80.0)
    assert believe(known, GARBAGE, ended_count=2, assigned_count=2, now_mono=NOW) == known
