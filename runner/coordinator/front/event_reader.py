"""Effect: pages of a job's durable events, together with the state of the job."""

from __future__ import annotations

from runner.coordinator.jobs import job_json
from runner.coordinator.jobs.job_registry import LiveJob
from runner.coordinator.lifecycle.job_lifecycle import JobLifecycle
from runner.coordinator.lifecycle.job_reader import JobReader
from runner.coordinator.lifecycle.shown_job import shown_job
from runner.coordinator.observability.wait_statuses import WaitStatuses
from runner.coordinator.queue.queue_manager import QueueManager
from runner.jobs.job import ENDED
from runner.protocol import front as front_protocol

#: The largest page, whatever size the front asks for.
PAGE_MAX_BYTES = 1024 * 1024


async def load_live_job(
    lifecycle: JobLifecycle,
    queue_manager: QueueManager,
    job_reader: JobReader,
    job_id: str,
    *,
    load_spilled: bool = False,
) -> LiveJob | None:
    """Return the job with its input if it is in memory; None if it has ended or does not exist.

    With `load_spilled` a spilled job is loaded back first; without, it counts as not in memory. If the end of
    the job is not durable yet, wait for the commit.

    Raises:
        StoreUnavailable: the store can't be read, or refuses the commit.
    """
    spill_pool = queue_manager.spill_pool
    live = await spill_pool.load_job(job_id) if load_spilled else lifecycle.registry.by_id.get(job_id)
    if live is not None and live.phase == "ended":
        await lifecycle.journal.flush()
        live = lifecycle.registry.by_id.get(job_id)
    if live is not None and live.input is None:
        spill_pool.keep_input(live, await job_reader.load_input(live.job.number))
        if load_spilled and live.phase == "spilled":
            return await load_live_job(lifecycle, queue_manager, job_reader, job_id, load_spilled=True)
    return live


async def read_event_page(
    lifecycle: JobLifecycle,
    queue_manager: QueueManager,
    job_reader: JobReader,
    wait_statuses: WaitStatuses,
    request: front_protocol.ReadEvents,
) -> front_protocol.EventPage:
    """Return the durable events after a cursor, and the job as it is after they were read.

    The page has at most `request.max_bytes` of events (1 MiB at most), but at least one event if there is
    any. An empty page although `last_seq` is beyond the cursor means that events were trimmed. With
    `max_bytes` 0 the page has no events.

    Raises:
        NotFound: there is no such job.
    """
    live = lifecycle.registry.by_id.get(request.job_id)
    job = live.job if live is not None else await job_reader.require_job(request.job_id)
    limit = min(request.max_bytes, PAGE_MAX_BYTES)
    events = await job_reader.load_events(job.number, request.after, limit) if limit else []
    live = await load_live_job(lifecycle, queue_manager, job_reader, request.job_id)
    if live is not None:
        shown = shown_job(live, lifecycle.journal)
        is_start_hidden = shown is not live.job
        reason = "ready" if is_start_hidden else queue_manager.reasons.for_live_job(live)
        wait = None if is_start_hidden else wait_statuses.status_of(live.job, live)
        job_document = job_json.job_document(shown, reason, live.input, live.output, full=False, wait=wait)
        job, is_job_ended, last_seq = live.job, False, job_reader.durable_seq(live.job)
    else:
        job = await job_reader.require_job(request.job_id)
        wait = wait_statuses.status_of(job, None)
        job_document = await job_reader.job_json(
            job, queue_manager.reasons.for_stored_job(job), full=False, wait=wait
        )
        is_job_ended, last_seq = job.state in ENDED, job.last_seq
    if limit and not events and last_seq > request.after:
        # They became durable between the two reads: an empty page would mean that they were trimmed.
        events = await job_reader.load_events(job.number, request.after, limit)
    first_seq = min(job.first_seq, events[0].seq) if events else job.first_seq
    rows: list[tuple[int, str, bytes]] = [(event.seq, event.type, event.data) for event in events]
    # A wait that follows an event is shown once that event is durable.
    is_current = wait is not None and last_seq == job.last_seq
    waiting = wait_statuses.message_of(job, wait) if wait is not None and is_current else None
    return front_protocol.EventPage(
        request.request_id, job_document, rows, first_seq, last_seq, is_job_ended, waiting
    )
