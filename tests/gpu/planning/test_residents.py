"""How many executors stay loaded: idle and pinned ones leave a place for others."""

from __future__ import annotations

from gpu.devices.device import cpu, sim
from gpu.planning.explain import explain
from tests.gpu.planner_harness import G, PlannerHarness, describe_actions, make_class

TWO_CORES = cpu("m", "c", 16 * G, 2)


def run_in_turn(harness: PlannerHarness, *handlers: str) -> list[str]:
    """One job of each after the other; the actions that this took."""
    actions: list[str] = []
    for handler in handlers:
        (job_number,) = harness.submit(make_class(handler, 0, gpus=0))
        for _ in range(3):
            actions += describe_actions(harness.plan_and_apply())
            harness.remove_leaving()
        assert job_number in harness.started, f"{handler} waits for ever"
        for executor, resident in harness.state.executors.items():
            if resident.is_busy:
                harness.finish(executor)
        harness.now += 1
    return actions


def test_five_plain_handlers_in_turn_on_two_cores_stay_warm() -> None:
    harness = PlannerHarness(TWO_CORES)
    run_in_turn(harness, *"abcde")
    assert run_in_turn(harness, *"abcdeabcde") == [
        f"start {executor}: {job_number}"
        for executor, job_number in zip([1, 2, 3, 4, 5] * 2, range(6, 16), strict=True)
    ]


def test_four_pinned_handlers_do_not_lock_two_cores() -> None:
    harness = PlannerHarness(TWO_CORES)
    harness.keep_alive_s = dict.fromkeys("abcd", -1.0)
    run_in_turn(harness, *"abcd")
    assert run_in_turn(harness, "e") == ["load e 5 on cpu 0G"]
    assert len(harness.state.residency.slots["cpu"].pinned) == 4


def test_a_pinned_executor_that_idles_takes_its_next_job_beside_others() -> None:
    harness = PlannerHarness(TWO_CORES)
    harness.keep_alive_s = {"a": -1.0}
    run_in_turn(harness, "a", "b")
    assert run_in_turn(harness, "a", "b") == ["start 1: 3", "start 2: 4"]


def test_no_more_are_at_work_than_before_however_many_idle() -> None:
    harness = PlannerHarness(TWO_CORES)
    run_in_turn(harness, *"abcde")
    for handler in "abcde":
        harness.submit(make_class(handler, 0, gpus=0))
    assert len(harness.plan_and_apply().actions) == 2 == harness.state.residency.slots["cpu"].busy_count


def test_the_limit_on_all_executors_holds_and_the_longest_idle_goes() -> None:
    harness = PlannerHarness(cpu("m", "c", 16 * G, 2, 2, 3))
    run_in_turn(harness, *"abc")
    assert run_in_turn(harness, "d") == ["evict 1", "load d 4 on cpu 0G"]


def test_the_last_place_is_never_pinned() -> None:
    harness = PlannerHarness(cpu("m", "c", 16 * G, 2, 2, 3))
    harness.keep_alive_s = dict.fromkeys("abcdef", -1.0)
    actions = run_in_turn(harness, *"abcdef")
    slot = harness.state.residency.slots["cpu"]
    assert [resident.key[0] for resident in slot.pinned.values()] == ["a", "b"]
    assert [action for action in actions if "evict" in action] == ["evict 3", "evict 4", "evict 5"]
    # One that may not be pinned stays until its place is needed, however long it idles.
    assert harness.state.idle_expiry.pop_due(1e12) == []


def device_entry(harness: PlannerHarness, handler: str, need: int = 0, gpus: int = 0) -> dict[str, object]:
    job_class = make_class(handler, need, gpus=gpus)
    (job_number,) = harness.submit(job_class)
    return dict(explain(harness.state, job_class, job_number)["devices"][0])


def test_the_limit_that_holds_a_job_up_is_named() -> None:
    harness = PlannerHarness(cpu("m", "c", 16 * G, 2, 2, 3))
    run_in_turn(harness, *"abc")
    full = device_entry(harness, "d")
    assert (full["reason"], full["residents"], full["max_resident"]) == ("max_resident", 3, 3)
    assert device_entry(harness, "b")["reason"] == "ready", "it idles there"
    harness.submit(make_class("a", 0, gpus=0))
    harness.plan_and_apply()
    busy = device_entry(harness, "e")
    assert (busy["reason"], busy["at_work"], busy["max_executors"]) == ("max_executors", 2, 2)


def test_bytes_that_pinned_executors_hold_are_named() -> None:
    harness = PlannerHarness(sim(0, 24 * G))
    harness.keep_alive_s = {"a": -1.0}
    harness.add_idle(make_class("a", 20 * G))
    entry = device_entry(harness, "b", 6 * G, gpus=1)
    assert (entry["reason"], entry["pinned"], entry["pinned_bytes"]) == ("waiting_for_memory", 1, 20 * G)


def test_an_executor_beside_which_nothing_starts_is_named() -> None:
    harness = PlannerHarness(sim(0, 24 * G))
    harness.add_running(make_class("a", None))
    assert device_entry(harness, "b", 1 * G, gpus=1)["reason"] == "exclusive_executor"


def test_a_full_device_is_not_said_to_lack_memory() -> None:
    harness = PlannerHarness(sim(0, 24 * G, 2, 1))
    harness.add_running(make_class("a", 6 * G))
    harness.submit(make_class("b", 6 * G))
    assert set(harness.plan_and_apply().reasons.values()) == {"waiting_for_device"}
