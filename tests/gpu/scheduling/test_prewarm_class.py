"""Wishes: executors that the plan makes ready for no job, after all jobs."""

from __future__ import annotations

import pytest

from gpu.devices.device import sim
from gpu.job_class import JobClass
from gpu.planning.planner import LoadAction, StartAction
from gpu.scheduling.prewarm_class import prewarm_class
from tests.gpu.planner_harness import G, Rig, job_class, told


def wished(
    rig: Rig,
    handler: str = "a",
    need: int | None = 6 * G,
    *,
    device_id: str | None = None,
    is_preload: bool = False,
    n: int = -1,
) -> JobClass:
    """A wish waits in the rig's view."""
    cls = prewarm_class(handler, "1", "", need_bytes=need, gpus=1, device_id=device_id, is_preload=is_preload)
    rig.view.add_waiting(cls, n, since=rig.now)
    return cls


def test_a_wish_is_loaded_where_a_job_would_be_and_then_idles() -> None:
    rig = Rig()
    wished(rig)
    assert told(rig.turn()) == ["load a -1 on sim0 6G"]
    assert rig.view.executors[1].assigned == {}
    rig.view.on_loaded(1, None, rig.now)
    assert rig.view.executors[1].state == "idle"
    assert told(rig.turn()) == []


def test_a_wish_has_idle_executors_go_but_a_preload_waits_for_room_that_is_free() -> None:
    rig = Rig()
    rig.idle(job_class("b", 20 * G))
    cls = wished(rig, is_preload=True)
    made = rig.turn()
    assert made.actions == [] and made.reasons[cls] == "waiting_for_memory"
    rig.view.remove_waiting(cls, -1)
    wished(rig)
    assert told(rig.turn()) == ["evict 1"]
    rig.bury_leaving()
    assert told(rig.turn()) == ["load a -1 on sim0 6G"]


def test_jobs_go_before_a_wish_that_is_older() -> None:
    rig = Rig()
    wished(rig, "a", 20 * G)
    rig.now += 10_000
    rig.submit(job_class("b", 20 * G))
    assert told(rig.turn()) == ["load b 1 on sim0 20G"]


def test_nothing_is_reserved_for_a_wish() -> None:
    rig = Rig()
    rig.running(job_class("b", 20 * G))
    wished(rig, "a", 20 * G)
    assert rig.turn().actions == []
    rig.submit(job_class("c", 4 * G))
    assert told(rig.turn()) == ["load c 2 on sim0 4G"]


def test_a_wish_for_a_device_goes_there_or_nowhere() -> None:
    rig = Rig(sim(0, 24 * G), sim(1, 24 * G))
    rig.running(job_class("b", 20 * G))
    wished(rig, "a", 20 * G, device_id="sim0")
    assert rig.turn().actions == []
    wished(rig, "c", 20 * G, device_id="sim1", n=-2)
    assert told(rig.turn()) == ["load c -2 on sim1 20G"]


def test_an_executor_elsewhere_does_not_serve_a_wish_for_a_device() -> None:
    rig = Rig(sim(0, 24 * G), sim(1, 24 * G))
    rig.idle(job_class("a"))
    wished(rig, "a", device_id="sim1")
    assert told(rig.turn()) == ["load a -1 on sim1 6G"]


def test_a_job_gets_the_executor_that_loads_for_nobody() -> None:
    rig = Rig()
    wished(rig)
    rig.turn()
    (n,) = rig.submit(job_class("a"))
    (start,) = rig.turn().actions
    assert isinstance(start, StartAction) and (start.executor, start.job_numbers) == (1, (n,))
    rig.view.on_loaded(1, None, rig.now)
    assert list(rig.view.executors[1].assigned) == [n]
    rig.finish(1)
    assert rig.view.executors[1].state == "idle"


def test_a_second_job_does_not_get_what_loads_for_the_first() -> None:
    rig = Rig()
    wished(rig)
    rig.turn()
    rig.submit(job_class("a"))
    rig.turn()
    rig.submit(job_class("a"))
    assert [type(action) for action in rig.turn().actions] == [LoadAction]


def test_one_that_went_while_it_loaded_is_nobodys_any_more() -> None:
    rig = Rig()
    wished(rig)
    rig.turn()
    rig.view.evict(1)
    assert rig.view.residency.prewarmed == {}
    with pytest.raises(ValueError, match="takes no work"):
        rig.view.start(1, job_class("a"), ())
    rig.submit(job_class("a"))
    assert [type(action) for action in rig.turn().actions] == [LoadAction]


def test_of_what_is_kept_one_stays_however_long_it_idles() -> None:
    rig = Rig()
    rig.keep_alive_s["a"] = 10.0
    cls = job_class("a")
    first, _ = rig.running(cls), rig.running(cls)
    for executor in list(rig.view.executors):
        rig.finish(executor)
    rig.view.residency.keep_loaded = {cls.key}
    assert rig.view.idle_expiry.pop_due(rig.now + 11) == [first]
    rig.view.evict(first)
    assert rig.view.idle_expiry.pop_due(rig.now + 10_000) == []
    # A job that needs its room has it go all the same.
    rig.bury_leaving()
    rig.submit(job_class("b", 20 * G))
    assert told(rig.turn()) == ["evict 2"]


@pytest.mark.parametrize("need", [8 * G, None])
def test_a_job_that_needs_more_than_that_executor_was_granted_does_not_get_it(need: int | None) -> None:
    rig = Rig()
    wished(rig)
    rig.turn()
    rig.submit(job_class("a", need))
    assert not [action for action in rig.turn().actions if isinstance(action, StartAction)]


def test_a_job_does_not_take_it_from_under_one_that_was_overtaken_too_often() -> None:
    rig = Rig(bypass_limit=0)
    wished(rig)
    rig.turn()
    rig.submit(job_class("b", 24 * G))
    cls = job_class("a")
    rig.submit(cls)
    assert rig.turn().actions == []
    assert rig.view.backlog.count(cls) == 1
