"""Wishes: executors that the plan makes ready for no job, after all jobs."""

from __future__ import annotations

import pytest

from gpu.devices.device import sim
from gpu.job_class import JobClass
from gpu.planning.planner import LoadAction, StartAction
from gpu.scheduling.prewarm_class import prewarm_class
from tests.gpu.planner_harness import G, PlannerHarness, describe_actions, make_class


def add_prewarm(
    rig: PlannerHarness,
    handler: str = "a",
    need: int | None = 6 * G,
    *,
    device_id: str | None = None,
    is_preload: bool = False,
    n: int = -1,
) -> JobClass:
    """A wish waits in the rig's view."""
    cls = prewarm_class(handler, "1", "", need_bytes=need, gpus=1, device_id=device_id, is_preload=is_preload)
    rig.state.add_waiting(cls, n, since=rig.now)
    return cls


def test_a_wish_is_loaded_where_a_job_would_be_and_then_idles() -> None:
    rig = PlannerHarness()
    add_prewarm(rig)
    assert describe_actions(rig.plan_and_apply()) == ["load a -1 on sim0 6G"]
    assert rig.state.executors[1].assigned == {}
    rig.state.on_loaded(1, None, rig.now)
    assert rig.state.executors[1].state == "idle"
    assert describe_actions(rig.plan_and_apply()) == []


def test_a_wish_has_idle_executors_go_but_a_preload_waits_for_room_that_is_free() -> None:
    rig = PlannerHarness()
    rig.add_idle(make_class("b", 20 * G))
    cls = add_prewarm(rig, is_preload=True)
    made = rig.plan_and_apply()
    assert made.actions == [] and made.reasons[cls] == "waiting_for_memory"
    rig.state.remove_waiting(cls, -1)
    add_prewarm(rig)
    assert describe_actions(rig.plan_and_apply()) == ["evict 1"]
    rig.remove_leaving()
    assert describe_actions(rig.plan_and_apply()) == ["load a -1 on sim0 6G"]


def test_jobs_go_before_a_wish_that_is_older() -> None:
    rig = PlannerHarness()
    add_prewarm(rig, "a", 20 * G)
    rig.now += 10_000
    rig.submit(make_class("b", 20 * G))
    assert describe_actions(rig.plan_and_apply()) == ["load b 1 on sim0 20G"]


def test_nothing_is_reserved_for_a_wish() -> None:
    rig = PlannerHarness()
    rig.add_running(make_class("b", 20 * G))
    add_prewarm(rig, "a", 20 * G)
    assert rig.plan_and_apply().actions == []
    rig.submit(make_class("c", 4 * G))
    assert describe_actions(rig.plan_and_apply()) == ["load c 2 on sim0 4G"]


def test_a_wish_for_a_device_goes_there_or_nowhere() -> None:
    rig = PlannerHarness(sim(0, 24 * G), sim(1, 24 * G))
    rig.add_running(make_class("b", 20 * G))
    add_prewarm(rig, "a", 20 * G, device_id="sim0")
    assert rig.plan_and_apply().actions == []
    add_prewarm(rig, "c", 20 * G, device_id="sim1", n=-2)
    assert describe_actions(rig.plan_and_apply()) == ["load c -2 on sim1 20G"]


def test_an_executor_elsewhere_does_not_serve_a_wish_for_a_device() -> None:
    rig = PlannerHarness(sim(0, 24 * G), sim(1, 24 * G))
    rig.add_idle(make_class("a"))
    add_prewarm(rig, "a", device_id="sim1")
    assert describe_actions(rig.plan_and_apply()) == ["load a -1 on sim1 6G"]


def test_a_job_gets_the_executor_that_loads_for_nobody() -> None:
    rig = PlannerHarness()
    add_prewarm(rig)
    rig.plan_and_apply()
    (n,) = rig.submit(make_class("a"))
    (start,) = rig.plan_and_apply().actions
    assert isinstance(start, StartAction) and (start.executor, start.job_numbers) == (1, (n,))
    rig.state.on_loaded(1, None, rig.now)
    assert list(rig.state.executors[1].assigned) == [n]
    rig.finish(1)
    assert rig.state.executors[1].state == "idle"


def test_a_second_job_does_not_get_what_loads_for_the_first() -> None:
    rig = PlannerHarness()
    add_prewarm(rig)
    rig.plan_and_apply()
    rig.submit(make_class("a"))
    rig.plan_and_apply()
    rig.submit(make_class("a"))
    assert [type(action) for action in rig.plan_and_apply().actions] == [LoadAction]


def test_one_that_went_while_it_loaded_is_nobodys_any_more() -> None:
    rig = PlannerHarness()
    add_prewarm(rig)
    rig.plan_and_apply()
    rig.state.evict(1)
    assert rig.state.residency.prewarmed == {}
    with pytest.raises(ValueError, match="takes no work"):
        rig.state.start(1, make_class("a"), ())
    rig.submit(make_class("a"))
    assert [type(action) for action in rig.plan_and_apply().actions] == [LoadAction]


def test_of_what_is_kept_one_stays_however_long_it_idles() -> None:
    rig = PlannerHarness()
    rig.keep_alive_s["a"] = 10.0
    cls = make_class("a")
    first, _ = rig.add_running(cls), rig.add_running(cls)
    for executor in list(rig.state.executors):
        rig.finish(executor)
    rig.state.residency.keep_loaded = {cls.key}
    assert rig.state.idle_expiry.pop_due(rig.now + 11) == [first]
    rig.state.evict(first)
    assert rig.state.idle_expiry.pop_due(rig.now + 10_000) == []
    # A job that needs its room has it go all the same.
    rig.remove_leaving()
    rig.submit(make_class("b", 20 * G))
    assert describe_actions(rig.plan_and_apply()) == ["evict 2"]


@pytest.mark.parametrize("need", [8 * G, None])
def test_a_job_that_needs_more_than_that_executor_was_granted_does_not_get_it(need: int | None) -> None:
    rig = PlannerHarness()
    add_prewarm(rig)
    rig.plan_and_apply()
    rig.submit(make_class("a", need))
    assert not [action for action in rig.plan_and_apply().actions if isinstance(action, StartAction)]


def test_a_job_does_not_take_it_from_under_one_that_was_overtaken_too_often() -> None:
    rig = PlannerHarness(bypass_limit=0)
    add_prewarm(rig)
    rig.plan_and_apply()
    rig.submit(make_class("b", 24 * G))
    cls = make_class("a")
    rig.submit(cls)
    assert rig.plan_and_apply().actions == []
    assert rig.state.backlog.count(cls) == 1
