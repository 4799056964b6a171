"""Every transition of a live job between its phases, and what each of them sets."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import get_args

import pytest

from gpu.job_class import JobClass
from runner.coordinator.jobs.job_phases import ADOPTABLE, PREDECESSORS, IllegalTransition, JobPhase
from runner.coordinator.jobs.job_registry import LiveJob
from runner.coordinator.jobs.usage_meter import UsageMeter
from runner.jobs.job import Job, JobTerms

PHASES: tuple[JobPhase, ...] = get_args(JobPhase)
CLASS = JobClass("q", "h", "v1", "m", 50, None, 1)

MARKS: dict[JobPhase, Callable[[LiveJob], None]] = {
    "waiting": lambda live: live.mark_waiting(CLASS),
    "behind": LiveJob.mark_behind,
    "delayed": LiveJob.mark_delayed,
    "spilled": LiveJob.mark_spilled,
    "assigned": lambda live: live.mark_assigned(7),
    "staged": LiveJob.mark_staged,
    "starting": LiveJob.mark_starting,
    "running": lambda live: live.mark_running(3.0),
    "ended": LiveJob.mark_ended,
}
#: A way from the phase of a new job, `waiting`, to each phase.
WAYS: dict[JobPhase, tuple[JobPhase, ...]] = {
    "waiting": ("waiting",),
    "behind": ("behind",),
    "delayed": ("delayed",),
    "spilled": ("behind", "spilled"),
    "assigned": ("assigned",),
    "staged": ("assigned", "staged"),
    "starting": ("assigned", "starting"),
    "running": ("assigned", "running"),
    "ended": ("ended",),
}


def in_phase(phase: JobPhase) -> LiveJob:
    live = LiveJob(Job(1, "job-1", "h", "q", 50, 0.0, JobTerms(), 2), b"{}", "waiting")
    for step in WAYS[phase]:
        MARKS[step](live)
    return live


def state_of(live: LiveJob) -> dict[str, object]:
    return {name: getattr(live, name) for name in LiveJob.__slots__}


@pytest.mark.parametrize(("phase", "next_phase"), list(product(PHASES, PHASES)))
def test_a_job_enters_a_phase_only_from_its_predecessors(phase: JobPhase, next_phase: JobPhase) -> None:
    live = in_phase(phase)
    assert live.phase == phase
    before = state_of(live)
    if phase in PREDECESSORS[next_phase]:
        MARKS[next_phase](live)
        assert live.phase == next_phase
        return
    with pytest.raises(
        IllegalTransition, match=f"^job job-1 is {phase} and can't become {next_phase}$"
    ) as caught:
        MARKS[next_phase](live)
    assert (caught.value.job_id, caught.value.phase, caught.value.next_phase) == ("job-1", phase, next_phase)
    assert state_of(live) == before


def test_the_table_has_every_phase_and_cannot_be_changed() -> None:
    assert tuple(sorted(PREDECESSORS)) == tuple(sorted(PHASES))
    assert all(isinstance(phases, frozenset) for phases in PREDECESSORS.values())
    with pytest.raises(TypeError):
        PREDECESSORS["ended"] = frozenset()  # type: ignore[index]


def test_an_ended_job_stays_ended_and_every_other_one_can_end() -> None:
    assert not any("ended" in phases for phases in PREDECESSORS.values())
    assert PREDECESSORS["ended"] == set(PHASES) - {"ended"}


def test_every_phase_but_the_last_is_left_for_another() -> None:
    reached: set[JobPhase] = {"waiting"}
    for _ in PHASES:
        reached |= {phase for phase, before in PREDECESSORS.items() if before & reached}
    assert reached == set(PHASES)


def test_waiting_sets_the_class() -> None:
    assert in_phase("behind").job_class is None
    assert in_phase("waiting").job_class is CLASS


def test_an_assigned_job_has_its_executor_and_its_next_attempt() -> None:
    live = in_phase("assigned")
    assert (live.executor, live.attempt_in_flight) == (7, 1)
    live.clear_attempt()
    assert (live.executor, live.attempt_in_flight, live.has_unused_attempt) == (None, 0, False)


@pytest.mark.parametrize("start", [LiveJob.mark_starting, lambda live: live.mark_running(3.0)])
def test_an_attempt_that_was_counted_and_not_started_keeps_its_number(
    start: Callable[[LiveJob], None],
) -> None:
    live = in_phase("assigned")
    live.job.started_at = 5.0
    start(live)
    assert live.previous_started_at == 5.0
    live.job.attempt, live.job.started_at = live.attempt_in_flight, 9.0
    live.clear_attempt(is_unused=True)
    live.mark_waiting(CLASS)
    live.mark_assigned(8)
    assert (live.attempt_in_flight, live.has_unused_attempt) == (1, True)
    start(live)
    assert (live.previous_started_at, live.has_unused_attempt) == (9.0, False)


def test_the_end_of_a_load_is_no_second_start() -> None:
    live = in_phase("starting")
    live.job.started_at = 9.0
    live.mark_running(12.0)
    assert (live.previous_started_at, live.running_since_mono) == (None, 12.0)


@pytest.mark.parametrize("output", [None, b"1"])
def test_the_end_sets_the_output(output: bytes | None) -> None:
    live = in_phase("running")
    live.mark_ended(output)
    assert live.output == output


@pytest.mark.parametrize("phase", PHASES)
def test_recovery_adopts_a_later_attempt_of_a_job_that_no_executor_holds(phase: JobPhase) -> None:
    live = in_phase(phase)
    live.job.attempt = 1
    if phase not in ADOPTABLE:
        with pytest.raises(IllegalTransition):
            live.adopt_attempt(2)
        return
    live.adopt_attempt(2)
    assert (live.phase, live.attempt_in_flight) == ("assigned", 2)


def test_recovery_adopts_the_stored_attempt_of_a_running_job_as_it_is() -> None:
    live = in_phase("running")
    live.job.attempt = 3
    live.adopt_attempt(3)
    assert (live.phase, live.attempt_in_flight) == ("running", 3)


def test_a_meter_is_read_once() -> None:
    live = in_phase("running")
    assert live.stop_meter(1.0) is None
    live.start_meter(UsageMeter(), 1.0)
    assert (live.stop_meter(4.0), live.stop_meter(5.0), live.meter_start) == (3.0, None, None)


def test_end_callbacks_are_taken_once_and_may_be_removed_before() -> None:
    live, calls, others = in_phase("running"), list[LiveJob](), list[LiveJob]()
    live.remove_end_callback(calls.append)
    live.add_end_callback(calls.append)
    live.add_end_callback(others.append)
    live.remove_end_callback(calls.append)
    live.remove_end_callback(calls.append)
    assert live.take_end_callbacks() == [others.append]
    assert live.take_end_callbacks() == []


def test_an_input_is_kept_and_dropped() -> None:
    live = in_phase("waiting")
    live.drop_input()
    assert live.input is None
    live.keep_input(b"7")
    assert live.input == b"7"
