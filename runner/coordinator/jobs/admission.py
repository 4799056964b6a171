"""Pure: turns a submission into a job: options resolved, bounds checked."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from gpu.estimates import batch_sizing
from gpu.job_class import JobClass
from gpu.planning import oom_escalation
from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.jobs import retry_decision
from runner.handlers.spec import HandlerOptions, HandlerSpec
from runner.jobs.job import Job, JobTerms, Submission
from runner.jobs.retry import Backoff
from runner.jobs.traits import decode_traits
from runner.stores.queued_groups import GroupKey, traits_text

#: Metadata up to this size is cached and shared between jobs.
SHARED_METADATA_MAX_BYTES = 256


def make_job(submission: Submission, spec: HandlerSpec | None, number: int, now: float) -> Job:
    """Make a queued job of a submission, whose fields the front has validated.

    Options that the submission leaves open come from `spec` (None: handler not yet known, so the defaults).
    `now` is in UTC epoch seconds. Of `run_at` and `delay_s` the later time counts.
    """
    options = spec.options if spec is not None else HandlerOptions()
    queue_timeout = submission.queue_timeout_s
    if queue_timeout is None:
        queue_timeout = options.queue_timeout_s
    metadata = submission.metadata or b"{}"
    # Equal terms are one shared object; large metadata must not stay in that cache.
    make_terms = _shared_terms if len(metadata) <= SHARED_METADATA_MAX_BYTES else JobTerms
    terms = make_terms(
        submission.timeout_s if submission.timeout_s is not None else options.timeout_s,
        queue_timeout,
        submission.retries if submission.retries is not None else options.retries,
        submission.backoff if submission.backoff is not None else options.backoff,
        submission.vram_bytes if submission.vram_bytes is not None else options.vram_bytes,
        tuple(submission.tags or ()),
        metadata,
        submission.tenant,
        submission.model,
        submission.size,
        submission.group,
    )
    ready_at = now
    if submission.run_at is not None:
        ready_at = max(ready_at, submission.run_at)
    if submission.delay_s is not None:
        ready_at = max(ready_at, now + submission.delay_s)
    return Job(
        number=number,
        id=submission.id,
        handler=submission.handler,
        queue=submission.queue or options.queue,
        priority=submission.priority if submission.priority is not None else options.priority,
        created_at=now,
        terms=terms,
        input_bytes=len(submission.input),
        reason="scheduled" if ready_at > now else None,
        ready_at=ready_at,
    )


def class_of_job(job: Job, spec: HandlerSpec, *, has_gpu: bool) -> JobClass:
    """The class in which the job waits: jobs of one class can take each other's place."""
    return _resolve_class(
        job.queue, job.priority, job.terms.vram_bytes, traits_text(job), spec=spec, has_gpu=has_gpu
    )


def adjust_class(job: Job, job_class: JobClass, scheduler_state: SchedulerState) -> JobClass:
    """Adjust the class of a job that has failed attempts.

    After running out of memory its need rises by the OOM escalation; devices that were lost under it are
    avoided; a job that may have failed others of its batch runs alone in its executor; one that was there
    each time when a worker ended runs alone on its devices.
    """
    if not job.attempts:
        return job_class
    if job.ran_out:
        job_class = oom_escalation.class_on_rung(scheduler_state, job_class, job.rung, job.ran_out[-1])
    avoid = sorted(
        {
            device
            for record in job.attempts
            if record.error is not None
            and (record.error.is_context_lost or record.error.code == "device_lost")
            for device in record.devices
        }
    )
    if any(record.error is not None and record.error.must_run_alone for record in job.attempts):
        # It may have caused the failure of the jobs that ran together with it.
        job_class = replace(job_class, alone_in_executor=True)
    if retry_decision.is_suspected(job):  # guard: suspect-set-apart
        job_class = replace(job_class, alone_in_executor=True, alone_on_device=True)
    return replace(job_class, avoided_devices=tuple(avoid)) if avoid else job_class


def apply_handler_limits(spec: HandlerSpec, scheduler_state: SchedulerState) -> None:
    """Tell the planner how many jobs of a handler may run at once, in total and in one executor."""
    options, batch = spec.options, spec.options.batch
    limits = None if batch is None else batch_sizing.BatchTerms(batch.max, batch.wait_s)
    scheduler_state.limits.set_handler_limit(spec.name, options.concurrency)
    scheduler_state.batch_sizing.set_handler(spec.name, spec.version, limits, options.slots)


def class_of_group(key: GroupKey, spec: HandlerSpec, *, has_gpu: bool) -> JobClass:
    """The class of all jobs of a queued group."""
    return _resolve_class(key.queue, key.priority, key.vram_bytes, key.traits, spec=spec, has_gpu=has_gpu)


def needed_bytes(options: HandlerOptions, vram_bytes: int | None, *, has_gpu: bool) -> int | None:
    """The bytes to grant to an executor on its device; 0: none, None: not known yet.

    Where a handler for GPUs runs on the cpu device, its `vram` counts as `ram`.
    """
    if options.gpus == 0:
        return options.ram_bytes or 0
    if has_gpu:
        return vram_bytes
    return options.ram_bytes if options.ram_bytes is not None else vram_bytes


@lru_cache(maxsize=4096)
def _shared_terms(
    timeout_s: float | None,
    queue_timeout_s: float | None,
    retries: int,
    backoff: Backoff,
    vram_bytes: int | None,
    tags: tuple[str, ...],
    metadata: bytes,
    tenant: str,
    model: str,
    size: str,
    group: str,
) -> JobTerms:
    names = (tenant, model, size, group)
    return JobTerms(timeout_s, queue_timeout_s, retries, backoff, vram_bytes, tags, metadata, *names)


def _resolve_class(
    queue: str, priority: int, vram_bytes: int | None, traits: str, *, spec: HandlerSpec, has_gpu: bool
) -> JobClass:
    options = spec.options
    need = needed_bytes(options, vram_bytes, has_gpu=has_gpu)
    # A job that declares its own need differs from the others of its handler: it gets a class of its own.
    declared_bytes = vram_bytes if options.gpus and vram_bytes != options.vram_bytes else None
    return _shared_class(
        queue, spec.name, spec.version, priority, need, options.gpus, options.strict, declared_bytes, traits
    )


@lru_cache(maxsize=4096)
def _shared_class(
    queue: str,
    handler: str,
    version: str,
    priority: int,
    need_bytes: int | None,
    gpus: int,
    strict: bool,
    declared_bytes: int | None,
    traits: str,
) -> JobClass:
    parsed = decode_traits(traits)
    return JobClass(
        queue=queue,
        handler=handler,
        version=version,
        model=parsed.model,
        priority=priority,
        need_bytes=need_bytes,
        gpus=gpus,
        size=parsed.size if declared_bytes is None else f"{parsed.size} vram={declared_bytes}".strip(),
        group=parsed.group,
        tenant=parsed.tenant,
        limit_s=parsed.limit_s,
        strict=strict,
    )


def reset_job(job: Job, now: float) -> None:
    """Reset an ended job to be queued again from `now` on (UTC epoch seconds), with all of its retries."""
    job.state = "queued"
    job.reason, job.error, job.finished_at = None, None, None
    job.failures, job.deaths, job.rung, job.ran_out = 0, 0, 0, ()
    job.started_at, job.progress, job.output_bytes, job.cancel_reason = None, None, None, None
    job.files = []
    job.ready_at = now
