from __future__ import annotations

from dataclasses import replace

from gpu.devices.device import sim
from gpu.planning.explain import explain_reservation
from tests.gpu.planner_harness import G, PlannerHarness, make_class


def test_it_tells_what_is_kept_for_the_first_that_finds_no_room() -> None:
    harness = PlannerHarness(sim(0, 24 * G), sim(1, 24 * G))
    harness.add_running(replace(make_class("x", 20 * G), limit_s=100.0))
    harness.add_running(replace(make_class("y", 20 * G), limit_s=40.0))
    (first,) = harness.submit(make_class("a", 10 * G))
    (second,) = harness.submit(make_class("b", 12 * G))
    assert explain_reservation(harness.state, first, 10.0) == {
        "devices": [{"device": "sim1", "needed_bytes": 10 * G}],
    }
    assert explain_reservation(harness.state, second, 10.0) is None


def test_nothing_is_kept_where_no_device_will_do() -> None:
    harness = PlannerHarness()
    (job_number,) = harness.submit(make_class("a", 10 * G))
    harness.state.set_device_open("sim0", False)
    assert explain_reservation(harness.state, job_number, 10.0) is None
