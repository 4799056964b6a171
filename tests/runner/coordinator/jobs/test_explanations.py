"""Figures in words."""

from __future__ import annotations

from typing import Any

import pytest

from runner.coordinator.jobs import explanations

GIB = 1 << 30


def test_a_misfit_names_what_is_needed_and_what_there_is() -> None:
    figures = {
        "needed_bytes": 40 * GIB,
        "gpus": 1,
        "devices": [{"device": "gpu0", "grantable_bytes": 24 * GIB}],
    }
    assert explanations.explain_misfit("huge", figures) == (
        "huge needs 40 GiB, but no device has more than 24 GiB (gpu0)"
    )


@pytest.mark.parametrize(
    ("needed", "gpus", "sizes", "text"),
    [
        (40, 1, [24, 24], "40 GiB, but no device has more than 24 GiB (gpu0, gpu1)"),
        (40, 1, [24, 8], "40 GiB, but no device has more than 24 GiB (gpu0 24 GiB, gpu1 8 GiB)"),
        (16, 2, [24, 8], "16 GiB on each of 2 devices, but only gpu0 has that much"),
        (16, 3, [24, 24], "16 GiB on each of 3 devices, but only gpu0, gpu1 have that much"),
        (0, 3, [24, 24], "3 devices, but there are only gpu0, gpu1"),
        (0, 1, [], "1 device, but there is no such device"),
    ],
)
def test_a_misfit_names_what_lacks(needed: int, gpus: int, sizes: list[int], text: str) -> None:
    figures = {
        "needed_bytes": needed * GIB,
        "gpus": gpus,
        "devices": [
            {"device": f"gpu{number}", "grantable_bytes": size * GIB} for number, size in enumerate(sizes)
        ],
    }
    assert explanations.explain_misfit("huge", figures) == f"huge needs {text}"


@pytest.mark.parametrize(
    ("phase", "is_cancelling", "text"),
    [
        ("running", False, "running on sim0, sim1 for 4 s"),
        ("starting", False, "loading on sim0, sim1 for 4 s"),
        ("running", True, "running on sim0, sim1 for 4 s, being cancelled"),
        ("staged", False, "queued at executor 7, behind its running attempt"),
        ("assigned", False, "about to be sent to executor 7"),
    ],
)
def test_an_attempt_in_flight_is_somewhere(phase: str, is_cancelling: bool, text: str) -> None:
    told = explanations.explain_attempt(phase, ["sim0", "sim1"], 7, 4.2, is_cancelling=is_cancelling)
    assert told == text


@pytest.mark.parametrize(
    ("reason", "figures", "text"),
    [
        (
            "waiting_for_memory",
            {"needed_bytes": 6 * GIB, "position": 2, "eta_s": 10.0},
            "waiting for memory: needs 6 GiB, 2nd, about 10 s",
        ),
        (
            "waiting_for_memory",
            {"needed_bytes": GIB, "device_count": 2, "position": 1},
            "waiting for memory: needs 1 GiB on each of 2 devices, 1st",
        ),
        ("waiting_for_memory", {"position": 3}, "waiting for memory, 3rd"),
        ("waiting_for_device", {"position": 4, "eta_s": 0.2}, "waiting for a device, 4th, about 1 s"),
        ("waiting_for_device", {"device_count": 2, "position": 11}, "waiting for 2 devices, 11th"),
        ("concurrency_limit", {"position": 1021}, "the handler is at its concurrency limit, 1,021st"),
        ("ready", {"position": 112}, "ready to start, 112th"),
        ("waiting_for_memory", {}, "waiting for memory"),
        ("paused", {"position": 1}, "the queue is paused"),
        (
            "waiting_for_handler",
            {},
            "waiting for its handler, which is unknown or still being described",
        ),
    ],
)
def test_a_wait_is_summarized_in_one_line(reason: str, figures: dict[str, Any], text: str) -> None:
    assert explanations.summarize_wait(reason, **figures) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1 s"),
        (9.4, "9 s"),
        (9.6, "10 s"),
        (13.0, "15 s"),
        (57.4, "55 s"),
        (58.0, "1 min"),
        (100.0, "2 min"),
        (3569.0, "59 min"),
        (3600.0, "1 h"),
        (90_000.0, "25 h"),
    ],
)
def test_an_estimate_is_rounded(seconds: float, text: str) -> None:
    assert explanations.format_about(seconds) == text


def test_an_expected_start_is_explained_or_unknown_yet() -> None:
    figures: dict[str, Any] = {"jobs_ahead": 0, "devices": []}
    told = explanations.explain_waiting("ready", figures | {"eta_s": 10.0})
    assert told == "ready to start; expected start: in about 10 s"
    assert explanations.explain_waiting("ready", figures | {"eta_s": None}).endswith("unknown yet")
    assert explanations.explain_waiting("paused", figures | {"eta_s": None}) == "the queue is paused"


def test_a_failed_attempt_is_named_with_its_message_on_one_line() -> None:
    assert explanations.explain_failure(2, "no luck\n at all") == "attempt 2 failed: no luck at all"
    assert explanations.explain_failure(1, " ") == "attempt 1 failed: without a message"
    assert (
        explanations.explain_retry_delay(1, "timed out after 2 s", 0.94)
        == "attempt 1 failed: timed out after 2 s; retry in 0.9 s"
    )


@pytest.mark.parametrize(("gpus", "kind"), [(1, "GPUs"), (0, "the cpu")])
def test_a_device_of_another_kind_is_told_so(gpus: int, kind: str) -> None:
    figures: dict[str, Any] = {"needed_bytes": GIB, "gpus": gpus, "devices": []}
    assert (
        explanations.explain_misfit("paint", figures, "x0") == f"paint does not run on x0: it is for {kind}"
    )


def test_a_gang_names_its_devices() -> None:
    figures: dict[str, Any] = {"needed_bytes": GIB, "gpus": 2, "devices": []}
    assert (
        explanations.explain_misfit("pair", figures)
        == "pair needs 1 GiB on each of 2 devices, but there is no such device"
    )


def entry(reason: str) -> dict[str, Any]:
    counts = {"at_work": 2, "max_executors": 2, "residents": 16, "max_resident": 16, "pinned": 3}
    return {"device": "gpu0", "free_bytes": 2 * GIB, "needed_bytes": 6 * GIB, "reason": reason, **counts}


@pytest.mark.parametrize(
    ("reason", "device", "ahead", "text"),
    [
        ("ready", "ready", 0, "ready to start"),
        ("paused", "ready", 1, "the queue is paused; queued behind 1 job"),
        (
            "concurrency_limit",
            "ready",
            2,
            "the handler is at its concurrency limit; queued behind 2 jobs",
        ),
        (
            "waiting_for_memory",
            "waiting_for_memory",
            0,
            "waiting for memory: gpu0 has 2 GiB free of 6 GiB needed",
        ),
        (
            "waiting_for_device",
            "waiting_for_device",
            0,
            "waiting for a device: gpu0 is not ready",
        ),
        (
            "waiting_for_device",
            "device_fault",
            0,
            "waiting for a device: gpu0 is out of service (unhealthy)",
        ),
        (
            "waiting_for_device",
            "not_alone",
            0,
            "waiting for a device: gpu0 is running other jobs, and this one must run alone",
        ),
        (
            "waiting_for_device",
            "avoided",
            0,
            "waiting for a device: gpu0 is avoided because an earlier attempt failed there",
        ),
        (
            "waiting_for_device",
            "max_executors",
            0,
            "waiting for a device: gpu0 is busy: 2 executors load or run, and max_executors is 2",
        ),
        (
            "waiting_for_device",
            "max_resident",
            0,
            "waiting for a device: gpu0 has 16 executors (3 of them pinned), and max_resident is 16",
        ),
        (
            "waiting_for_device",
            "exclusive_executor",
            0,
            "waiting for a device: gpu0 is busy with an executor beside which no other one starts",
        ),
        ("waiting_for_device", "drained", 0, "waiting for a device: gpu0 is drained"),
        ("waiting_for_memory", "too_small", 0, "waiting for memory: gpu0 is too small for 6 GiB"),
    ],
)
def test_each_reason_is_a_sentence(reason: str, device: str, ahead: int, text: str) -> None:
    assert explanations.explain_waiting(reason, {"jobs_ahead": ahead, "devices": [entry(device)]}) == text


def test_what_other_programs_hold_is_told() -> None:
    figures = {"devices": [entry("waiting_for_memory") | {"foreign_bytes": 4 * GIB}], "jobs_ahead": 0}
    assert explanations.explain_waiting("waiting_for_memory", figures) == (
        "waiting for memory: gpu0 has 2 GiB free of 6 GiB needed (other programs hold 4 GiB)"
    )


def test_what_pinned_executors_hold_is_told() -> None:
    held = {"foreign_bytes": 4 * GIB, "pinned_bytes": 8 * GIB}
    figures = {"devices": [entry("waiting_for_memory") | held], "jobs_ahead": 0}
    assert explanations.explain_waiting("waiting_for_memory", figures).endswith(
        "needed (other programs hold 4 GiB, pinned executors hold 8 GiB)"
    )


def test_a_tenant_that_had_more_than_others_is_told_so() -> None:
    figures = {"jobs_ahead": 0, "devices": [entry("waiting_for_device")], "tenant_lead_s": 61.4}
    assert explanations.explain_waiting("waiting_for_device", figures).endswith(
        "gpu0 is not ready; tenant has used 61 s more device time, by weight, than another waiting tenant"
    )


def test_what_is_kept_for_a_job_is_told() -> None:
    figures: dict[str, Any] = {"jobs_ahead": 0, "devices": [entry("waiting_for_device")]}
    kept = {"devices": [{"device": "gpu0"}, {"device": "gpu1"}]}
    told = explanations.explain_waiting("waiting_for_device", figures | {"reserved": kept, "eta_s": 41.6})
    assert told.endswith(
        "; reserved for it: gpu0, gpu1, where only jobs that end in time may start"
        "; expected start: in about 40 s"
    )


def test_a_device_that_has_enough_is_told_so_where_another_lacks() -> None:
    devices = [
        {"device": "gpu0", "free_bytes": 24 * GIB, "needed_bytes": 8 * GIB, "reason": "ready"},
        {"device": "gpu1", "free_bytes": 24 * GIB, "needed_bytes": 8 * GIB, "reason": "drained"},
    ]
    told = explanations.explain_waiting("waiting_for_device", {"devices": devices, "jobs_ahead": 0})
    assert told == "waiting for a device: gpu0 has enough memory (24 GiB free), gpu1 is drained"


def test_without_a_device_it_says_so() -> None:
    figures: dict[str, Any] = {"jobs_ahead": 0, "devices": []}
    assert explanations.explain_waiting("waiting_for_device", figures).endswith("there is no suitable device")
