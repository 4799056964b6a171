"""From what was asked to a job."""

from __future__ import annotations

import math

import msgspec
import pytest

from gpu.devices.device import sim
from gpu.job_class import JobClass
from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.jobs.admission import (
    adjust_class,
    class_of_group,
    class_of_job,
    make_job,
    needed_bytes,
)
from runner.handlers.spec import HandlerOptions, HandlerSpec, Source
from runner.jobs.job import AttemptRecord, Job, JobError, Submission
from runner.jobs.retry import Backoff
from runner.stores.queued_groups import group_key

NOW = 100.0
G = 1 << 30


def spec(**options: object) -> HandlerSpec:
    return HandlerSpec("h", "v1", "ok", Source("file", "/h.py", "h"), HandlerOptions(**options))  # type: ignore[arg-type]


def asked(**fields: object) -> Submission:
    return Submission("id", "h", b"{}", **fields)  # type: ignore[arg-type]


def test_what_is_left_open_comes_from_the_handler() -> None:
    backoff = Backoff("fixed", 2.0)
    job = make_job(asked(), spec(queue="q", priority=70, retries=3, backoff=backoff, timeout_s=5.0), 1, NOW)
    assert (job.queue, job.priority, job.terms.retries) == ("q", 70, 3)
    assert (job.terms.backoff, job.terms.timeout_s) == (backoff, 5.0)


def test_what_is_asked_goes_before_the_handlers_options() -> None:
    job = make_job(
        asked(queue="mine", priority=0, retries=0, timeout_s=1.0), spec(priority=70, retries=3), 1, NOW
    )
    assert (job.queue, job.priority, job.terms.retries, job.terms.timeout_s) == ("mine", 0, 0, 1.0)


@pytest.mark.parametrize(
    ("fields", "ready_at", "reason"),
    [
        ({}, NOW, None),
        ({"delay_s": 60.0}, NOW + 60, "scheduled"),
        ({"run_at": NOW + 5}, NOW + 5, "scheduled"),
        ({"run_at": NOW - 5}, NOW, None),
        ({"run_at": NOW + 5, "delay_s": 9.0}, NOW + 9, "scheduled"),
        ({"delay_s": 0.0}, NOW, None),
    ],
)
def test_a_delay_is_a_later_ready_at(fields: dict[str, object], ready_at: float, reason: str | None) -> None:
    job = make_job(asked(**fields), spec(), 1, NOW)
    assert (job.ready_at, job.reason) == (ready_at, reason)


@pytest.mark.parametrize(
    ("options", "has_gpu", "expected"),
    [
        ({"gpus": 0}, True, 0),
        ({"gpus": 0, "ram_bytes": 7}, True, 7),
        ({"gpus": 1, "vram_bytes": 5}, True, 5),
        ({"gpus": 1}, True, None),
        ({"gpus": 1, "vram_bytes": 5}, False, 5),
        ({"gpus": 1, "vram_bytes": 5, "ram_bytes": 7}, False, 7),
        ({"gpus": 1}, False, None),
    ],
)
def test_bytes_are_counted_where_the_handler_runs(
    options: dict[str, int], has_gpu: bool, expected: int | None
) -> None:
    made = HandlerOptions(**options)  # type: ignore[arg-type]
    assert needed_bytes(made, made.vram_bytes, has_gpu=has_gpu) == expected


def test_jobs_that_need_the_same_share_a_class() -> None:
    one = make_job(asked(), spec(gpus=1), 1, NOW)
    other = make_job(asked(vram_bytes=5), spec(gpus=1), 2, NOW)
    assert class_of_job(one, spec(gpus=1), has_gpu=True) == class_of_job(one, spec(gpus=1), has_gpu=True)
    assert class_of_job(one, spec(gpus=1), has_gpu=True) != class_of_job(other, spec(gpus=1), has_gpu=True)


def tried(*errors: JobError | None, **changes: object) -> tuple[Job, JobClass]:
    """A job with attempts on gpu0, gpu1 and so on that ended so, and its class."""
    job = make_job(asked(vram_bytes=6 * G), spec(gpus=1), 1, NOW)
    job.attempts = [
        AttemptRecord(at + 1, "w", [f"gpu{at}"], NOW, error=error) for at, error in enumerate(errors)
    ]
    return msgspec.structs.replace(job, **changes), class_of_job(job, spec(gpus=1), has_gpu=True)


def test_who_was_not_tried_yet_waits_with_its_kind() -> None:
    job, cls = tried()
    assert adjust_class(job, cls, SchedulerState([sim(0, 24 * G)])) is cls
    job, cls = tried(JobError("handler_error", "why"))
    assert adjust_class(job, cls, SchedulerState([sim(0, 24 * G)])) is cls


def test_who_ran_out_of_memory_waits_for_more_also_after_other_failures() -> None:
    short = JobError("device_out_of_memory", "why")
    job, cls = tried(short, JobError("timeout", "why"), rung=2, ran_out=(4 * G, 6 * G))
    made = adjust_class(job, cls, SchedulerState([sim(0, 24 * G)]))
    assert (made.need_bytes, made.alone_on_device, made.avoided_devices) == (9 * G, True, ())


def test_who_may_have_spoiled_others_goes_alone_from_then_on() -> None:
    together = JobError("interrupted", "why", True, {"alone": True})
    job, cls = tried(together, JobError("handler_error", "why"))
    assert adjust_class(job, cls, SchedulerState([sim(0, 24 * G)])).alone_in_executor
    job, cls = tried(JobError("interrupted", "why", True, {"alone": False}))
    assert not adjust_class(job, cls, SchedulerState([sim(0, 24 * G)])).alone_in_executor


def test_a_job_that_was_there_each_time_when_a_worker_ended_is_set_apart() -> None:
    shared = JobError("interrupted", "why", True, {"worker_lost_with": 4})
    lone = JobError("interrupted", "why", True, {"worker_lost_with": 1})
    for errors, is_alone in [((shared,), False), ((shared, lone, lone), False), ((shared, shared), True)]:
        job, cls = tried(*errors)
        made = adjust_class(job, cls, SchedulerState([sim(0, 24 * G)]))
        assert (made.alone_on_device, made.alone_in_executor) == (is_alone, is_alone)


def test_devices_that_failed_under_a_job_are_avoided() -> None:
    lost = JobError("handler_error", "why", detail={"context_lost": True})
    job, cls = tried(lost, JobError("handler_error", "why"), JobError("device_lost", "why"), None)
    assert adjust_class(job, cls, SchedulerState([sim(0, 24 * G)])).avoided_devices == ("gpu0", "gpu2")


def test_small_equal_terms_are_shared_and_large_ones_are_not_kept() -> None:
    small, large = b'{"a":1}', b'{"a":"%s"}' % (b"x" * 1000)
    made = [
        make_job(Submission("job-1", "h", b"{}", metadata=metadata), None, 1, 0.0).terms
        for metadata in (small, small, large, large)
    ]
    assert made[0] is made[1] and made[2] is not made[3]
    assert made[2] == made[3] and made[2].metadata == large


def test_traits_come_into_the_class_and_the_lot_alike() -> None:
    named = spec(gpus=1, timeout_s=600.0)
    job = make_job(asked(model="sdxl", size="1024", group="g", tenant="t"), named, 1, NOW)
    cls = class_of_job(job, named, has_gpu=True)
    assert (cls.model, cls.size, cls.group, cls.tenant) == ("sdxl", "1024", "g", "t")
    assert cls.key == ("h", "v1", "sdxl") and cls.limit_s == 2.0**9.5
    assert class_of_group(group_key(job), named, has_gpu=True) is cls
    assert class_of_job(make_job(asked(), named, 2, NOW), named, has_gpu=True) != cls


def test_timeouts_that_round_alike_share_a_class() -> None:
    made = [make_job(asked(timeout_s=limit), spec(), 1, NOW) for limit in (513.0, 600.0, 724.0)]
    classes = {class_of_job(one, spec(), has_gpu=True) for one in made}
    assert len(classes) == 1
    (endless,) = {class_of_job(make_job(asked(), spec(timeout_s=None), 1, NOW), spec(), has_gpu=True)}
    assert math.isinf(endless.limit_s)


def test_a_job_that_names_its_own_need_is_learned_of_apart() -> None:
    named = spec(gpus=1, vram_bytes=5)
    sizes = {
        vram: class_of_job(
            make_job(asked(vram_bytes=vram, size="512"), named, 1, NOW), named, has_gpu=True
        ).size
        for vram in (None, 5, 7)
    }
    assert sizes == {None: "512", 5: "512", 7: "512 vram=7"}
    job = make_job(asked(vram_bytes=7), named, 1, NOW)
    assert class_of_job(job, named, has_gpu=True).size == "vram=7"
    assert class_of_group(group_key(job), named, has_gpu=True) is class_of_job(job, named, has_gpu=True)
    on_cpu = make_job(asked(vram_bytes=7), spec(), 1, NOW)
    assert class_of_job(on_cpu, spec(), has_gpu=True).size == ""
