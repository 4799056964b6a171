from __future__ import annotations

from dataclasses import replace

import pytest

from gpu.devices.device import Device, cpu, sim
from gpu.planning.oom_escalation import (
    SLACK_BYTES,
    OomCircumstances,
    OomRung,
    class_on_rung,
    largest_grant_bytes,
    next_rung,
    oom_circumstances,
    oom_report,
    unknown_circumstances,
)
from gpu.scheduling.scheduler_state import SchedulerState
from tests.gpu.planner_harness import G, PlannerHarness, make_class

A = make_class("a", 4 * G)


def circumstances(grant: int = 4 * G, *, alone: bool = False, largest: int = 24 * G) -> OomCircumstances:
    return OomCircumstances(("sim0",), grant, alone, largest, 0, [])


@pytest.mark.parametrize(
    ("rung", "around", "expected"),
    [
        (OomRung.NONE, circumstances(), OomRung.ALONE),
        (OomRung.ALONE, circumstances(), OomRung.LARGER),
        (OomRung.LARGER, circumstances(6 * G), OomRung.WHOLE),
        (OomRung.WHOLE, circumstances(24 * G), None),
        # Who was alone has nothing from being alone again.
        (OomRung.NONE, circumstances(alone=True), OomRung.LARGER),
        # Half as much again is all there is, or more.
        (OomRung.NONE, circumstances(16 * G, alone=True), OomRung.WHOLE),
        (OomRung.ALONE, circumstances(20 * G), OomRung.WHOLE),
        # It had all there is.
        (OomRung.NONE, circumstances(24 * G, alone=True), None),
        (OomRung.NONE, circumstances(24 * G), OomRung.ALONE),
        (OomRung.ALONE, circumstances(24 * G), None),
        (OomRung.LARGER, circumstances(24 * G), None),
        # Others have taken some of it meanwhile.
        (OomRung.LARGER, circumstances(6 * G, largest=5 * G), None),
        (OomRung.NONE, circumstances(alone=True, largest=0), None),
        # Nobody could look.
        (OomRung.NONE, unknown_circumstances(["sim0"], 4 * G), OomRung.ALONE),
        (OomRung.ALONE, unknown_circumstances(["sim0"], 4 * G), OomRung.LARGER),
        (OomRung.LARGER, unknown_circumstances([], 24 * G), OomRung.WHOLE),
        (OomRung.WHOLE, unknown_circumstances(["sim0"], 24 * G), None),
    ],
)
def test_the_next_rung_is_the_first_that_can_bring_something(
    rung: OomRung, around: OomCircumstances, expected: OomRung | None
) -> None:
    assert next_rung(rung, around) == expected


def make_state(*devices: Device) -> SchedulerState:
    return SchedulerState(devices or (sim(0, 16 * G), sim(1, 24 * G)))


@pytest.mark.parametrize(
    ("rung", "need", "alone"),
    [
        (OomRung.NONE, 4 * G, False),
        (OomRung.ALONE, 5 * G, True),
        (OomRung.LARGER, 7.5 * G, True),
        (OomRung.WHOLE, 24 * G, True),
    ],
)
def test_each_rung_has_its_line(rung: OomRung, need: float, alone: bool) -> None:
    made = class_on_rung(make_state(), A, rung, 5 * G)
    assert (made.need_bytes, made.alone_on_device) == (need, alone)


def test_what_was_learned_meanwhile_counts_where_it_is_more() -> None:
    there, unknown = make_state(), make_class("a", None)
    there.record_run(make_class("a", None), 10 * G, None)
    learned = there.memory_needs.need_bytes(unknown)
    assert learned is not None and learned > 10 * G
    assert class_on_rung(there, unknown, OomRung.LARGER, 5 * G).need_bytes == learned
    assert class_on_rung(there, unknown, OomRung.LARGER, 12 * G).need_bytes == 18 * G


def test_after_a_restart_with_smaller_devices_nobody_waits_for_what_is_not_there() -> None:
    small = make_state(sim(0, 8 * G))
    assert class_on_rung(small, A, OomRung.ALONE, 12 * G) == replace(A, alone_on_device=True)
    assert class_on_rung(small, A, OomRung.LARGER, 6 * G).need_bytes == 8 * G


def test_devices_that_take_no_work_do_not_count_while_others_do() -> None:
    there = make_state()
    there.set_device_open("sim1", False)
    assert class_on_rung(there, A, OomRung.WHOLE, 6 * G).need_bytes == 16 * G
    there.set_device_open("sim0", False)
    # A server that starts: their workers are still to come.
    assert class_on_rung(there, A, OomRung.WHOLE, 6 * G).need_bytes == 24 * G


def test_nobody_is_given_less_than_before() -> None:
    harness = PlannerHarness()
    harness.keep_alive_s["p"] = -1
    harness.add_idle(make_class("p", 20 * G))
    assert class_on_rung(harness.state, A, OomRung.LARGER, 6 * G).need_bytes == 6 * G


def test_a_whole_device_is_what_others_leave_of_it() -> None:
    card = replace(sim(0, 24 * G), kind="nvidia")
    there = make_state(card)
    there.ledger.usage.record_reading("sim0", 24 * G, 3 * G)
    assert largest_grant_bytes(there, A) == 21 * G - SLACK_BYTES


def test_what_a_pinned_model_holds_is_not_to_be_had() -> None:
    harness = PlannerHarness()
    harness.keep_alive_s["p"] = -1
    harness.add_idle(make_class("p", 6 * G))
    assert largest_grant_bytes(harness.state, A) == 18 * G


def test_a_gang_has_what_the_smallest_of_its_devices_gives() -> None:
    there = make_state(sim(0, 16 * G), sim(1, 24 * G), sim(2, 20 * G))
    assert largest_grant_bytes(there, make_class("g", 4 * G, gpus=2)) == 20 * G
    assert largest_grant_bytes(there, make_class("g", 4 * G, gpus=4)) == 0


def test_who_was_at_work_beside_it_is_seen_and_told() -> None:
    harness = PlannerHarness()
    first, other, idler = (
        harness.add_running(A),
        harness.add_running(make_class("b", 2 * G)),
        harness.add_idle(make_class("c", 1 * G)),
    )
    harness.state.ledger.usage.record_total(idler, G // 2)
    around = oom_circumstances(harness.state, A, first, started_at=0.0)
    assert not around.was_alone and around.grant_bytes == 4 * G and around.largest_bytes == 24 * G
    assert around.neighbours == [
        {
            "executor": other,
            "handler": "b",
            "state": "running",
            "granted_bytes": 2 * G,
            "resident_bytes": None,
        },
        {
            "executor": idler,
            "handler": "c",
            "state": "idle",
            "granted_bytes": G,
            "resident_bytes": G // 2,
        },
    ]


def test_who_only_idled_beside_it_does_not_count_as_company() -> None:
    harness = PlannerHarness()
    idler = harness.add_idle(make_class("c", 1 * G))
    since = harness.state.executors[idler].idle_since
    first = harness.add_running(A)
    assert oom_circumstances(harness.state, A, first, started_at=since + 0.5).was_alone
    assert not oom_circumstances(harness.state, A, first, started_at=since - 0.5).was_alone


def test_in_ram_being_alone_changes_nothing() -> None:
    harness = PlannerHarness(cpu("here", "chip", 16 * G, 8))
    first = harness.add_running(A)
    harness.add_running(make_class("b", 2 * G))
    assert oom_circumstances(harness.state, A, first, started_at=0.0).was_alone
    assert not class_on_rung(harness.state, A, OomRung.LARGER, 4 * G).alone_on_device
    assert class_on_rung(harness.state, A, OomRung.LARGER, 4 * G).need_bytes == 6 * G


def test_a_strict_handler_is_given_no_more_than_it_declared() -> None:
    harness = PlannerHarness()
    strict = replace(A, strict=True)
    first = harness.add_running(A)
    around = oom_circumstances(harness.state, strict, first, started_at=0.0, ceiling_bytes=4 * G)
    assert around.largest_bytes == 4 * G and next_rung(OomRung.NONE, around) is None
    # What was learned had been less than that.
    assert class_on_rung(harness.state, strict, OomRung.LARGER, 2 * G).need_bytes == 3 * G
    assert class_on_rung(harness.state, strict, OomRung.LARGER, 3 * G).need_bytes == 4 * G
    assert class_on_rung(harness.state, strict, OomRung.WHOLE, 3 * G).need_bytes == 4 * G


def test_the_report_has_all_that_people_ask_for() -> None:
    made = oom_report(
        circumstances(24 * G), declared_bytes=4 * G, granted=(4 * G, 6 * G, 24 * G), peak_bytes=5 * G
    )
    assert made == {
        "declared_bytes": 4 * G,
        "granted_bytes": [4 * G, 6 * G, 24 * G],
        "peak_bytes": 5 * G,
        "largest_bytes": 24 * G,
        "foreign_bytes": 0,
        "devices": ["sim0"],
        "neighbours": [],
    }
