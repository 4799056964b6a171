"""Effect: hands jobs in, singly, waited for and in bulk, and finds out what became of unanswered ones."""

from __future__ import annotations

import asyncio
import time
from urllib.parse import quote

from benchmarks.soak import job_mix
from benchmarks.soak.http_client import ConnectionLost, SoakResponse
from benchmarks.soak.job_mix import JobDraft
from benchmarks.soak.ledger import SubmittedJob
from benchmarks.soak.reader import Readers
from benchmarks.soak.run_context import RunContext

#: A frame of a front that died is read by a coordinator that was stopped for 3 s at most.
UNKNOWN_FOR_S = 8.0
BURST_JOBS = (5, 40)


class Submitter:
    """The apps that POST."""

    def __init__(self, context: RunContext, readers: Readers) -> None:
        self._context = context
        self._readers = readers

    async def submit_singly(self) -> None:
        """Single jobs at random moments."""
        context = self._context
        async with asyncio.TaskGroup() as group:
            while await context.pause(context.rng.expovariate(context.rate * 0.6)):
                wait_s = context.rng.choice((0.5, 2.0, 5.0)) if context.rng.random() < 0.15 else 0.0
                group.create_task(self.submit(job_mix.draw_job(context.rng), wait_s=wait_s))

    async def submit_bursts(self) -> None:
        """Many at once, in one request or over as many connections."""
        context = self._context
        mean = sum(BURST_JOBS) / 2
        while await context.pause(context.rng.expovariate(context.rate * 0.4 / mean)):
            drafts = [job_mix.draw_job(context.rng) for _ in range(context.rng.randint(*BURST_JOBS))]
            if context.rng.random() < 0.5:
                await self.submit_bulk(drafts)
            else:
                await asyncio.gather(*(self.submit(order, fresh=True) for order in drafts))

    async def submit(
        self, draft: JobDraft, *, wait_s: float = 0.0, fresh: bool = False
    ) -> tuple[SubmittedJob, SoakResponse | None]:
        """One POST; no answer where the connection was lost."""
        context = self._context
        entry = context.ledger.open(draft, time.monotonic())
        try:
            answer = await context.http.request("POST", "/v1/jobs", _body(entry), wait_s=wait_s, fresh=fresh)
        except ConnectionLost:
            context.counts["submits unanswered"] += 1
            return entry, None
        if context.expect(answer, {429}, "a submit"):
            self._on_accepted(entry, answer.document())
        else:
            context.ledger.mark_refused(entry)
        return entry, answer

    async def submit_bulk(self, drafts: list[JobDraft]) -> None:
        """All of them in one request."""
        context = self._context
        entries = [context.ledger.open(draft, time.monotonic()) for draft in drafts]
        try:
            answer = await context.http.request(
                "POST", "/v1/jobs/bulk", {"jobs": [_body(entry) for entry in entries]}
            )
        except ConnectionLost:
            context.counts["submits unanswered"] += len(entries)
            return
        if not context.expect(answer, {429}, "a bulk submit"):
            for entry in entries:
                context.ledger.mark_refused(entry)
            return
        for entry, row in zip(entries, answer.document()["jobs"], strict=True):
            if "id" in row:
                self._on_accepted(entry, row)
            else:
                context.ledger.mark_refused(entry)

    async def resolve_periodically(self) -> None:
        """Once in a while: whether unanswered submits have become jobs."""
        while await self._context.pause(3.0):
            await self.resolve_unanswered()

    async def resolve_unanswered(self) -> None:
        """Look for the jobs of all entries whose answer never came."""
        context = self._context
        now = time.monotonic()
        for entry in list(context.ledger.entries.values()):
            if entry.job_id is not None or now - entry.sent_at < UNKNOWN_FOR_S or entry.busy:
                continue
            try:
                answer = await context.http.request("GET", f"/v1/jobs?tag={quote(entry.tag)}")
            except ConnectionLost:
                return
            if not context.expect(answer, set(), "a look for a tag"):
                return
            found = answer.document()["data"]
            if len(found) > 1:
                context.report_job_violation(entry, f"I3: one submit became {len(found)} jobs")
            if found:
                context.ledger.mark_found(entry, found[0]["id"])
            else:
                context.ledger.remove(entry)

    def _on_accepted(self, entry: SubmittedJob, job: dict[str, str]) -> None:
        self._context.ledger.mark_accepted(entry, job["id"])
        self._readers.maybe_follow(entry)


def _body(entry: SubmittedJob) -> dict[str, object]:
    draft = entry.draft
    # The handler puts the key into its output, so that each output can be held against its input.
    data = {**draft.input, "key": entry.tag}
    return {"handler": draft.handler, "input": data, "tags": [entry.tag], **draft.options}
