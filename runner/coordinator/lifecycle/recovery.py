"""Effect: recovery after a start: restores jobs that the last coordinator left, before new ones start.

The order is fixed: wait until old workers have released their devices, so that their spools are complete;
read the spools; load the jobs; apply the spooled messages; requeue the attempts that no message has ended;
commit; only then remove the spools.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gpu.devices.device_id import is_cpu_id
from gpu.planning.oom_escalation import OomCircumstances, unknown_circumstances
from runner.coordinator.jobs.attempt_end import AttemptEnd, build_attempt_end, interrupted_end
from runner.coordinator.jobs.job_registry import LiveJob
from runner.coordinator.jobs.retry_decision import is_out_of_memory
from runner.coordinator.lifecycle.job_lifecycle import JobLifecycle
from runner.coordinator.queue.queue_manager import QueueManager
from runner.coordinator.storage.journal import Journal
from runner.errors import Fenced, RefusedStart, StoreUnavailable
from runner.jobs.job import ENDED, Job
from runner.jobs.job_query import JobQuery
from runner.protocol.spool import Spool, read_spools, remove_drafts, remove_spool
from runner.protocol.worker import UNDECODABLE, AttemptEnded, AttemptEvents, FromWorker, from_worker_decoder
from runner.stores.queued_groups import StoredGroup
from runner.stores.sqlite.access import StoreAccess
from runner.stores.store import Store

log = logging.getLogger(__name__)

#: Time limit in seconds: workers of a dead coordinator end within one, and one that holds its lock for
#: longer is stuck.
LOCKS_WAIT_S = 5.0
LOCKS_POLL_S = 0.02
#: Time limit for storing what was recovered; no client waits for an answer meanwhile.
WRITE_WAIT_S = 10.0
WRITE_POLL_S = 0.1
#: Jobs named by spools that are read in one statement.
IDS_PER_READ = 500


async def wait_for_device_locks(locks_dir: Path) -> None:
    """Wait until no worker of an earlier start holds a device.

    Raises:
        RefusedStart: a worker still does after 5 s.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + LOCKS_WAIT_S
    for path in sorted(locks_dir.glob("*.lock")):
        while _is_held(path):
            if loop.time() > deadline:
                raise RefusedStart(
                    f"a worker of an earlier server still holds {path}; end that process and start again"
                )
            await asyncio.sleep(LOCKS_POLL_S)


def _is_held(path: Path) -> bool:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


async def make_durable(journal: Journal) -> None:
    """Wait until what was recovered is stored, even if the store is slow or refuses writes for a while.

    Raises:
        StoreUnavailable: it still refuses after 10 s, or another coordinator has taken over.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + WRITE_WAIT_S
    while True:
        try:
            return await journal.flush()
        except Fenced:
            raise
        except StoreUnavailable:
            if loop.time() > deadline:
                raise
        await asyncio.sleep(WRITE_POLL_S)


@dataclass(frozen=True, slots=True)
class RecoveredState:
    """The jobs that the last coordinator left in the store."""

    queued: list[StoredGroup]
    #: The running jobs, and those that spooled messages name.
    jobs: list[Job]

    @classmethod
    def load(cls, store: Store, job_ids: Sequence[str], now: float) -> RecoveredState:
        """Read all of it; `job_ids` are the ids that spools name."""
        jobs = {job.number: job for job in store.load_running_jobs()}
        for at in range(0, len(job_ids), IDS_PER_READ):
            ids = list(job_ids[at : at + IDS_PER_READ])
            jobs |= {job.number: job for job in store.find_jobs(JobQuery(ids=ids, limit=len(ids)))}
        return cls(store.load_queued_groups(now), [job for job in jobs.values() if job.state not in ENDED])


async def recover_stored(
    access: StoreAccess, lifecycle: JobLifecycle, queue_manager: QueueManager, spool_dir: Path
) -> None:
    """Recover the jobs in the store and the messages in spools; return when all of it is stored.

    Raises:
        StoreUnavailable: see `make_durable`.
    """
    spools = read_spools(spool_dir)
    load = partial(RecoveredState.load, job_ids=job_ids_in(spools), now=lifecycle.clock.now())
    counts = recover(lifecycle, queue_manager, await access.run_read(load), spools)
    await make_durable(lifecycle.journal)
    for spool in spools:
        remove_spool(spool)
    remove_drafts(spool_dir)
    if any(counts.values()):
        log.info(
            "recovered from the last start: %(live)d jobs that had not ended, "
            "%(applied)d spooled messages of workers, %(interrupted)d interrupted attempts",
            counts,
        )


def job_ids_in(spools: Iterable[Spool]) -> list[str]:
    """Return the ids of the jobs that spooled messages name, sorted."""
    messages = (_decode_job_message(raw) for spool in spools for raw in spool.messages)
    return sorted({message.job_id for message in messages if message is not None})


def recover(
    lifecycle: JobLifecycle, queue_manager: QueueManager, state: RecoveredState, spools: Iterable[Spool]
) -> dict[str, int]:
    """Load the jobs that had not ended, apply the spooled messages of workers, requeue interrupted jobs.

    Changes memory and the journal; the caller commits. Returns counts: `live` jobs, `applied` messages and
    `interrupted` attempts.
    """
    counts = {"live": lifecycle.registry.queued_count, "applied": 0, "interrupted": 0}
    queue_manager.load_stored(state.queued)
    for job in state.jobs:
        is_running = job.state == "running"
        if not is_running:
            # Not queued until the messages about it are applied.
            queue_manager.remove_stored(job)
        lifecycle.registry.add(LiveJob(job, None, "running" if is_running else "assigned"), is_counted=True)
        counts["live"] += is_running
    for spool in spools:
        for raw in spool.messages:
            counts["applied"] += _apply_message(lifecycle, queue_manager, raw, spool.hello.name)
    for live in list(lifecycle.registry):
        if live.phase == "ended":
            continue
        if live.job.state == "running":  # guard: interrupted-at-start
            live.adopt_attempt(live.job.attempt)
            message = "the server stopped while the attempt was running"
            lifecycle.end_attempt(live, interrupted_end(live.job.id, live.job.applied_seq, message))
            counts["interrupted"] += 1
        elif live.phase == "assigned" and live.attempt_in_flight == 0:
            queue_manager.enqueue(live)
    return counts


def _apply_message(lifecycle: JobLifecycle, queue_manager: QueueManager, raw: bytes, worker: str) -> int:
    """Apply a spooled message; return 1 if it changed its job, 0 if it is stale or was applied before."""
    message = _decode_job_message(raw)
    if message is None:
        return 0
    live = lifecycle.registry.by_id.get(message.job_id)
    if live is None or live.phase == "ended" or live.job.state in ENDED or message.attempt < live.job.attempt:
        lifecycle.statistics.stale_count += 1
        return 0
    job = live.job
    if job.attempt == message.attempt:  # guard: applied-once
        if message.seq <= job.applied_seq:
            # It was applied before the restart, but not acknowledged to its worker.
            return 0
        if job.state != "running":
            lifecycle.statistics.stale_count += 1
            return 0
    is_start_unknown = job.attempt < message.attempt
    if is_start_unknown:
        # The end of an earlier attempt may have queued it.
        queue_manager.dequeue(live)
    live.adopt_attempt(message.attempt)  # guard: flight-of-applied
    if is_start_unknown:
        # The attempt was sent before its start was stored, as a first attempt may be.
        at = (
            message.started_at
            if isinstance(message, AttemptEnded) and message.started_at is not None
            else lifecycle.clock.now()
        )
        lifecycle.start_attempt(live, at=at, worker=worker, devices=[], is_loading=False)
    if isinstance(message, AttemptEvents):
        lifecycle.record_events(live, message)
    else:
        end = build_attempt_end(message, retry_at=message.retry_at, peak_bytes=message.peak_bytes)
        lifecycle.end_attempt(live, end, oom=_oom_circumstances(job, end))
    return 1


def _oom_circumstances(job: Job, end: AttemptEnd) -> OomCircumstances | None:
    """Return the circumstances of an attempt that ran out of device memory, as far as they are still known;
    None for all others."""
    devices = job.attempts[-1].devices if job.attempts else []
    grant_bytes = (job.attempts[-1].granted_bytes if job.attempts else 0) or job.terms.vram_bytes or 0
    is_on_cpu = len(devices) == 1 and is_cpu_id(devices[0])
    if is_on_cpu or not is_out_of_memory(end, grant_bytes=grant_bytes):
        return None
    return unknown_circumstances(devices, grant_bytes)


def _decode_job_message(raw: bytes) -> AttemptEvents | AttemptEnded | None:
    """Decode a message about a job; None for messages about executors, which are gone."""
    try:
        message: FromWorker = from_worker_decoder.decode(raw)
    except UNDECODABLE as error:
        log.warning("failed to decode a spooled message: %s", error)
        return None
    return message if isinstance(message, AttemptEvents | AttemptEnded) else None
