"""Effect: looks at ended jobs, one by one, over the public interface, and lets go of those that are well."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
import zlib
from collections.abc import Iterable
from typing import Any

from benchmarks.soak.http_client import ConnectionLost, SoakResponse
from benchmarks.soak.job_checks import JobCase, StoredEvent, find_violations
from benchmarks.soak.ledger import SubmittedJob
from benchmarks.soak.recorder import SseEvent
from benchmarks.soak.run_context import RunContext
from runner.jobs.job import ENDED

#: A job is not looked at before it is so old: its readers and its users are to have had their time.
MIN_AGE_S = 15.0
CONCURRENCY = 4


class NotYet(Exception):
    """The job has not ended, or the server was not there; it is looked at again later."""


class Auditor:
    """Checks every job once, late, and keeps at most `pile` of them on the server meanwhile."""

    def __init__(self, context: RunContext, pile: int) -> None:
        self._context = context
        self._pile = pile
        self._concurrency = asyncio.Semaphore(CONCURRENCY)
        #: Jobs that were looked at and left on the server: they alone may have files.
        self.kept_jobs: set[str] = set()

    async def check_oldest(self) -> None:
        """While the run goes on: look at the oldest and delete them."""
        context = self._context
        while await context.pause(1.0):
            excess = len(context.ledger.entries) - self._pile
            if excess <= 0:
                continue
            old = [
                entry
                for entry in context.ledger.known()[: excess + 20]
                if not entry.busy and time.monotonic() - entry.sent_at > MIN_AGE_S
            ]
            await self._check_all(old[: 20 + int(context.rate * 4)], delete=True)

    async def check_remaining(self, within_s: float) -> None:
        """After the run: look at all that is left; what has not ended by then is a fault."""
        context = self._context
        until = time.monotonic() + within_s
        while (known := context.ledger.known()) and time.monotonic() < until:
            if not await self._check_all(known, delete=False):
                await asyncio.sleep(0.5)
        for entry in context.ledger.known():
            context.report_job_violation(
                entry, f"I7: it could not be looked at within {within_s:g} s after the run"
            )

    async def find_unknown_jobs(self) -> None:
        """Every job of the server must have been handed in by somebody: a look before the last check."""
        context = self._context
        tags = set(context.ledger.entries)
        cursor = ""
        while True:
            answer = await context.http.request("GET", f"/v1/jobs?order=asc&limit=500{cursor}")
            if not context.expect(answer, set(), "a list of jobs"):
                return
            page = answer.document()
            for job in page["data"]:
                if not set(job["tags"]) & tags:
                    context.report_violation(
                        f"I1: job {job['id']} {job['tags']} is there, and nobody has handed it in"
                    )
            if not page["next_cursor"]:
                return
            cursor = f"&cursor={page['next_cursor']}"

    async def _check_all(self, entries: Iterable[SubmittedJob], *, delete: bool) -> int:
        """How many were looked at."""
        return sum(await asyncio.gather(*(self._check(entry, delete=delete) for entry in entries)))

    async def _check(self, entry: SubmittedJob, *, delete: bool) -> bool:
        context = self._context
        async with self._concurrency:
            entry.frozen = True
            try:
                case = await self._read_case(entry)
                # Before our own delete changes what may be.
                broken = find_violations(case, context.facts)
                if delete and case.job is not None:
                    await self._delete(entry)
            except (ConnectionLost, NotYet):
                entry.frozen = False
                return False
        for fault in broken:
            context.report_job_violation(entry, fault)
        self._count(case)
        assert entry.job_id is not None
        if not delete and case.job is not None:
            self.kept_jobs.add(entry.job_id)
        for stamp in context.stamps.find(entry.job_id):
            context.http.recorder.record_execution(
                entry.job_id, stamp.attempt, stamp.started_at, stamp.ended_at, stamp.waited_s
            )
        context.stamps.remove(entry.job_id)
        context.ledger.remove(entry)
        return True

    def _count(self, case: JobCase) -> None:
        counts, job = self._context.counts, case.job
        counts["jobs looked at"] += 1
        if job is None:
            counts["end: deleted by a user"] += 1
            return
        code = job["error"]["code"] if job["error"] else ""
        counts[f"end: {job['state']} {code}".rstrip()] += 1
        counts["attempts"] += job["attempt"]
        counts["events checked"] += len(case.events)
        ran = [stamp.attempt for stamp in case.stamps]
        counts["first attempts run again after a crash"] += len(ran) - len(set(ran))
        counts["interrupted attempts"] += sum(
            1 for attempt in case.attempts if attempt["error"] and attempt["error"]["code"] == "interrupted"
        )
        late = max((stamp.waited_s for stamp in case.stamps), default=0.0)
        counts["longest overlap with a killed attempt, ms"] = max(
            counts["longest overlap with a killed attempt, ms"], int(late * 1000)
        )

    async def _read_case(self, entry: SubmittedJob) -> JobCase:
        """All that is known of a job. Raises NotYet, Lost."""
        assert entry.job_id is not None
        job = await self._get(entry, "")
        if job is None:
            return JobCase(entry, None)
        if job["state"] not in ENDED:
            raise NotYet
        attempts = await self._get(entry, "/attempts")
        events, gap_to = await self._events(entry)
        await self._check_bodies(entry, job)
        again = await self._get(entry, "")
        if again != job or attempts is None:
            # A retry whose answer was lost came to pass meanwhile.
            raise NotYet
        return JobCase(entry, job, attempts["data"], events, gap_to, self._context.stamps.find(entry.job_id))

    async def _events(self, entry: SubmittedJob) -> tuple[list[StoredEvent], int]:
        stream = await self._context.http.stream(f"/v1/jobs/{entry.job_id}/events")
        if isinstance(stream, SoakResponse):
            self._context.expect(stream, set(), f"the events of {entry.job_id}")
            raise NotYet
        events, gap_to = [], 0
        try:
            async for event in stream.events():
                if event.name == "gap":
                    gap_to = json.loads(event.data)["to"]
                if event.id is not None:
                    events.append(_stored_event(event))
        finally:
            stream.close()
        return events, gap_to

    async def _check_bodies(self, entry: SubmittedJob, job: dict[str, Any]) -> None:
        """What is too large for every look: the output by itself, the file that was saved."""
        context = self._context
        if job["state"] != "succeeded" or entry.draft.kind not in ("large", "save"):
            return
        output = await self._get(entry, "/output")
        if output != job["output"]:
            context.report_job_violation(entry, "I3: its output by itself is another one")
        if entry.draft.kind == "large" and len(job["output"]["text"]) != entry.draft.input["bytes"]:
            context.report_job_violation(
                entry, f"I3: {len(job['output']['text'])} bytes of its output are left"
            )
        if entry.draft.kind == "save":
            reference = job["output"]["file"]
            answer = await context.http.request("GET", reference["url"])
            if not context.expect(answer, set(), f"the file of {entry.job_id}"):
                raise NotYet
            if hashlib.sha256(answer.body).hexdigest() != reference["sha256"]:
                context.report_job_violation(
                    entry, f"I3: its file of {reference['size']} bytes has {len(answer.body)} others"
                )

    async def _get(self, entry: SubmittedJob, path: str) -> Any:
        """None where there is no such job. Raises NotYet."""
        context = self._context
        answer = await context.http.request("GET", f"/v1/jobs/{entry.job_id}{path}")
        if answer.status == 404:
            return None
        if not context.expect(answer, {409}, f"GET {path} of {entry.job_id}"):
            raise NotYet
        return answer.document()

    async def _delete(self, entry: SubmittedJob) -> None:
        """Checked, and no longer needed: nothing of it may stay. Raises NotYet."""
        context = self._context
        entry.deleted = "maybe"
        answer = await context.http.request("DELETE", f"/v1/jobs/{entry.job_id}")
        if not context.expect(answer, {404, 409}, f"DELETE of {entry.job_id}"):
            raise NotYet
        if await self._get(entry, "") is not None:
            context.report_job_violation(entry, "I2: it was deleted by the check and is there")
        context.counts["deleted after the check"] += 1


def _stored_event(event: SseEvent) -> StoredEvent:
    assert event.id is not None
    return StoredEvent(event.id, event.name, json.loads(event.data), zlib.crc32(event.data))
