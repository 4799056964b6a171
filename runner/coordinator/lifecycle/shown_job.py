"""Effect: a live job as clients may see it: never with a first attempt that could be forgotten."""

from __future__ import annotations

import copy

from runner.coordinator.jobs.job_registry import LiveJob
from runner.coordinator.storage.journal import Journal
from runner.jobs.job import Job


def shown_job(live: LiveJob, journal: Journal) -> Job:
    """Return the job as documents show it: as memory has it, or before its first start.

    Later attempts are durable before they are sent to a worker; the first one is not, as that would delay
    every start by a commit. If all processes died before the commit, the next start would not know of it and
    would start an attempt of the same number. Until then the job is shown as queued, as the store has it. The
    returned job may be the live one, and must not be changed.
    """
    job = live.job
    if job.attempt != 1 or journal.durable_seq(job) >= live.first_start_seq:
        return job
    job = copy.copy(job)
    job.state, job.reason = "queued", None
    job.attempt, job.attempts = 0, []
    job.started_at, job.progress = None, None
    return job
