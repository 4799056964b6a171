"""Wishes: executors that the plan makes ready for no job, after all jobs."""

from __future__ import annotations

import pytest

from gpu.devices.device import sim
from gpu.job_class import JobClass
from gpu.planning.planner import LoadAction, StartAction
from gpu.scheduling.prewarm_class import prewarm_class
from tests.gpu.planner_harness import G, PlannerHarness, describe_actions, make_class


def add_prewarm(
    harness: PlannerHarness,
    handler: str = "a",
    need: int | None = 6 * G,
    *,
    device_id: str | None = None,
    is_preload: bool = False,
    job_number: int = -1,
) -> JobClass:
    """A wish waits in the rig's view."""
    job_class = prewarm_class(
        handler, "1", "", need_bytes=need, gpus=1, device_id=device_id, is_preload=is_preload
    )
    harness.state.add_waiting(job_class, job_number, since=harness.now)
    return job_class


def test_a_wish_is_loaded_where_a_job_would_be_and_then_idles() -> None:
    harness = PlannerHarness()
    add_prewarm(harness)
    assert describe_actions(harness.plan_and_apply()) == ["load a -1 on sim0 6G"]
    assert harness.state.executors[1].assigned == {}
    harness.state.on_loaded(1, None, harness.now)
    assert harness.state.executors[1].state == "idle"
    assert describe_actions(harness.plan_and_apply()) == []


def test_a_wish_has_idle_executors_go_but_a_preload_waits_for_room_that_is_free() -> None:
    harness = PlannerHarness()
    harness.add_idle(make_class("b", 20 * G))
    job_class = add_prewarm(harness, is_preload=True)
    made = harness.plan_and_apply()
    assert made.actions == [] and made.reasons[job_class] == "waiting_for_memory"
    harness.state.remove_waiting(job_class, -1)
    add_prewarm(harness)
    assert describe_actions(harness.plan_and_apply()) == ["evict 1"]
    harness.remove_leaving()
    assert describe_actions(harness.plan_and_apply()) == ["load a -1 on sim0 6G"]


def test_jobs_go_before_a_wish_that_is_older() -> None:
    harness = PlannerHarness()
    add_prewarm(harness, "a", 20 * G)
    harness.now += 10_000
    harness.submit(make_class("b", 20 * G))
    assert describe_actions(harness.plan_and_apply()) == ["load b 1 on sim0 20G"]


def test_nothing_is_reserved_for_a_wish() -> None:
    harness = PlannerHarness()
    harness.add_running(make_class("b", 20 * G))
    add_prewarm(harness, "a", 20 * G)
    assert harness.plan_and_apply().actions == []
    harness.submit(make_class("c", 4 * G))
    assert describe_actions(harness.plan_and_apply()) == ["load c 2 on sim0 4G"]


def test_a_wish_for_a_device_goes_there_or_nowhere() -> None:
    harness = PlannerHarness(sim(0, 24 * G), sim(1, 24 * G))
    harness.add_running(make_class("b", 20 * G))
    add_prewarm(harness, "a", 20 * G, device_id="sim0")
    assert harness.plan_and_apply().actions == []
    add_prewarm(harness, "c", 20 * G, device_id="sim1", job_number=-2)
    assert describe_actions(harness.plan_and_apply()) == ["load c -2 on sim1 20G"]


def test_an_executor_elsewhere_does_not_serve_a_wish_for_a_device() -> None:
    harness = PlannerHarness(sim(0, 24 * G), sim(1, 24 * G))
    harness.add_idle(make_class("a"))
    add_prewarm(harness, "a", device_id="sim1")
    assert describe_actions(harness.plan_and_apply()) == ["load a -1 on sim1 6G"]


def test_a_job_gets_the_executor_that_loads_for_nobody() -> None:
    harness = PlannerHarness()
    add_prewarm(harness)
    harness.plan_and_apply()
    (job_number,) = harness.submit(make_class("a"))
    (start,) = harness.plan_and_apply().actions
    assert isinstance(start, StartAction) and (start.executor, start.job_numbers) == (1, (job_number,))
    harness.state.on_loaded(1, None, harness.now)
    assert list(harness.state.executors[1].assigned) == [job_number]
    harness.finish(1)
    assert harness.state.executors[1].state == "idle"


def test_a_second_job_does_not_get_what_loads_for_the_first() -> None:
    harness = PlannerHarness()
    add_prewarm(harness)
    harness.plan_and_apply()
    harness.submit(make_class("a"))
    harness.plan_and_apply()
    harness.submit(make_class("a"))
    assert [type(action) for action in harness.plan_and_apply().actions] == [LoadAction]


def test_one_that_went_while_it_loaded_is_nobodys_any_more() -> None:
    harness = PlannerHarness()
    add_prewarm(harness)
    harness.plan_and_apply()
    harness.state.evict(1)
    assert harness.state.residency.prewarmed == {}
    with pytest.raises(ValueError, match="takes no work"):
        harness.state.start(1, make_class("a"), ())
    harness.submit(make_class("a"))
    assert [type(action) for action in harness.plan_and_apply().actions] == [LoadAction]


def test_of_what_is_kept_one_stays_however_long_it_idles() -> None:
    harness = PlannerHarness()
    harness.keep_alive_s["a"] = 10.0
    job_class = make_class("a")
    first, _ = harness.add_running(job_class), harness.add_running(job_class)
    for executor in list(harness.state.executors):
        harness.finish(executor)
    harness.state.residency.keep_loaded = {job_class.key}
    assert harness.state.idle_expiry.pop_due(harness.now + 11) == [first]
    harness.state.evict(first)
    assert harness.state.idle_expiry.pop_due(harness.now + 10_000) == []
    # A job that needs its room has it go all the same.
    harness.remove_leaving()
    harness.submit(make_class("b", 20 * G))
    assert describe_actions(harness.plan_and_apply()) == ["evict 2"]


@pytest.mark.parametrize("need", [8 * G, None])
def test_a_job_that_needs_more_than_that_executor_was_granted_does_not_get_it(need: int | None) -> None:
    harness = PlannerHarness()
    add_prewarm(harness)
    harness.plan_and_apply()
    harness.submit(make_class("a", need))
    assert not [action for action in harness.plan_and_apply().actions if isinstance(action, StartAction)]


def test_a_job_does_not_take_it_from_under_one_that_was_overtaken_too_often() -> None:
    harness = PlannerHarness(bypass_limit=0)
    add_prewarm(harness)
    harness.plan_and_apply()
    harness.submit(make_class("b", 24 * G))
    job_class = make_class("a")
    harness.submit(job_class)
    assert harness.plan_and_apply().actions == []
    assert harness.state.backlog.count(job_class) == 1
