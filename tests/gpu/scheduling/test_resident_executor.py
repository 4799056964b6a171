"""A resident executor: its grant and the attempts that it may still be assigned."""

from __future__ import annotations

import pytest

from gpu.job_class import JobClass
from gpu.scheduling.resident_executor import ResidentExecutor

GIB = 1 << 30
A_JOB_CLASS = JobClass("default", "h", "1", "", 50, 2 * GIB, 1)


def make_resident(*, keep_alive_s: float = 60.0, max_jobs: int | None = None) -> ResidentExecutor:
    return ResidentExecutor(1, ("h", "1", ""), ("gpu0",), 2 * GIB, keep_alive_s, max_jobs, False)


@pytest.mark.parametrize(("grant_gib", "expected_gib"), [(3, 3), (2, 2), (1, 2)])
def test_a_grant_is_raised_and_never_lowered(grant_gib: int, expected_gib: int) -> None:
    resident = make_resident()
    resident.raise_grant(grant_gib * GIB)
    assert resident.grant_bytes == expected_gib * GIB


@pytest.mark.parametrize(("keep_alive_s", "is_pinned"), [(-1.0, True), (0.0, False), (60.0, False)])
def test_below_zero_it_is_kept_forever(keep_alive_s: float, is_pinned: bool) -> None:
    assert make_resident(keep_alive_s=keep_alive_s).is_pinned is is_pinned


@pytest.mark.parametrize(
    ("max_jobs", "jobs_done", "places", "is_worn_out"),
    [(None, 1_000, 1, False), (3, 0, 1, False), (3, 1, 1, False), (3, 2, 0, True)],
)
def test_places_are_bounded_by_the_depth_and_by_the_jobs_that_it_may_run(
    max_jobs: int | None, jobs_done: int, places: int, is_worn_out: bool
) -> None:
    resident = make_resident(max_jobs=max_jobs)
    resident.jobs_done = jobs_done
    resident.assigned[7] = A_JOB_CLASS
    assert (resident.free_places(2), resident.is_worn_out) == (places, is_worn_out)


def test_nothing_is_staged_behind_a_long_job() -> None:
    resident = make_resident()
    resident.long_job_number = 7
    assert resident.free_places(5) == 0
