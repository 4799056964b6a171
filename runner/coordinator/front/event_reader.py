"""Effect: pages of a job's events: what is durable of it, and how far the job is."""

from __future__ import annotations

from runner.coordinator.jobs import job_json
from runner.coordinator.jobs.job_registry import LiveJob
from runner.coordinator.lifecycle.job_lifecycle import JobLifecycle
from runner.coordinator.lifecycle.job_reader import JobReader
from runner.jobs.job import ENDED
from runner.protocol import front as front_protocol

#: A page is read in portions of at most so many bytes, whatever the front asks for.
PAGE_MAX_BYTES = 1024 * 1024


async def load_live_job(
    line: JobLifecycle, archive: JobReader, job_id: str, *, load_spilled: bool = False
) -> LiveJob | None:
    """The job if it is in memory, with its input; `rouse` also wakes one that sleeps in the store. An end
    that is not durable yet is waited for."""
    spill_pool = line.queue_manager.spill_pool
    live = await spill_pool.load_job(job_id) if load_spilled else line.registry.by_id.get(job_id)
    if live is not None and live.phase == "ended":
        await line.journal.flush()
        live = line.registry.by_id.get(job_id)
    if live is not None and live.input is None:
        spill_pool.keep_input(live, await archive.load_input(live.job.number))
        if load_spilled and live.phase == "asleep":
            return await load_live_job(line, archive, job_id, load_spilled=True)
    return live


async def read_event_page(
    line: JobLifecycle, archive: JobReader, ask: front_protocol.ReadEvents
) -> front_protocol.EventPage:
    """The events behind a cursor, with the job as it is after they were read.

    Raises:
        NotFound
    """
    live = line.registry.by_id.get(ask.job_id)
    job = live.job if live is not None else await archive.require_job(ask.job_id)
    limit = min(ask.max_bytes, PAGE_MAX_BYTES)
    events = await archive.load_events(job.number, ask.after, limit)
    live = await load_live_job(line, archive, ask.job_id)
    if live is not None:
        reason = line.queue_manager.reasons.for_live_job(live)
        job_json = job_json.job_document(live.job, reason, live.input, live.output, full=False)
        job, is_job_ended, last_seq = live.job, False, archive.durable_seq(live.job)
    else:
        job = await archive.require_job(ask.job_id)
        job_json = await archive.job_json(job, line.queue_manager.reasons.for_stored_job(job), full=False)
        is_job_ended, last_seq = job.state in ENDED, job.last_seq
    if not events and last_seq > ask.after:
        # They became durable between the two looks: told as none they would be taken for gone.
        events = await archive.load_events(job.number, ask.after, limit)
    first_seq = min(job.first_seq, events[0].seq) if events else job.first_seq
    rows: list[tuple[int, str, bytes]] = [(event.seq, event.type, event.data) for event in events]
    return front_protocol.EventPage(ask.request_id, job_json, rows, first_seq, last_seq, is_job_ended)
