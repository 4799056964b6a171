"""Effect: the users who change their minds: cancels, retries, deletes, looks, waits, pauses of queues."""

from __future__ import annotations

import asyncio

from benchmarks.soak import job_mix
from benchmarks.soak.http_client import ConnectionLost, SoakResponse
from benchmarks.soak.ledger import SubmittedJob
from benchmarks.soak.run_context import RunContext

ACTIONS = ("cancel", "cancel", "force", "retry", "delete", "wait", "look", "list")
#: Of the newest jobs.
ROWS_LISTED = 50


class UserActions:
    """Acts on random jobs of the ledger."""

    def __init__(self, context: RunContext) -> None:
        self._context = context

    async def act_on_jobs(self) -> None:
        """Now and then something is done to a job that was handed in lately."""
        context = self._context
        async with asyncio.TaskGroup() as group:
            while await context.pause(context.rng.expovariate(context.rate * 0.25)):
                known = [entry for entry in context.ledger.known()[-200:] if _is_free(entry)]
                if known:
                    # Mostly young ones: an old one has ended.
                    entry = known[-1 - min(len(known) - 1, int(context.rng.expovariate(0.08)))]
                    group.create_task(self._act_on_job(entry, context.rng.choice(ACTIONS)))

    async def pause_queues(self) -> None:
        """A queue stands still for a moment."""
        context = self._context
        while await context.pause(context.rng.uniform(10.0, 30.0)):
            queue = context.rng.choice(job_mix.QUEUES)
            if await self._set_queue(queue, "pause"):
                await context.pause(context.rng.uniform(0.5, 4.0))
            await self.resume(queue)

    async def resume(self, queue: str) -> None:
        """Until the server has said that it is done."""
        while not await self._set_queue(queue, "resume"):
            await asyncio.sleep(0.3)

    async def _set_queue(self, queue: str, verb: str) -> bool:
        try:
            answer = await self._context.http.request("POST", f"/v1/queues/{queue}/{verb}")
        except ConnectionLost:
            return False
        # A queue exists from its first use.
        if answer.status == 404:
            return True
        return self._context.expect(answer, set(), f"{verb} of a queue")

    async def _act_on_job(self, entry: SubmittedJob, action: str) -> None:
        entry.busy += 1
        self._context.counts[f"asked: {action}"] += 1
        try:
            await getattr(self, f"_{action}")(entry)
        finally:
            entry.busy -= 1

    async def _ask(
        self, entry: SubmittedJob, method: str, path: str, document: object = None, wait_s: float = 0.0
    ) -> SoakResponse | None:
        """The answer, None where it was lost or the server was not there."""
        context = self._context
        try:
            answer = await context.http.request(
                method, f"/v1/jobs/{entry.job_id}{path}", document, wait_s=wait_s
            )
        except ConnectionLost:
            return None
        if answer.status == 404 and entry.deleted == "no" and entry.answer == "accepted":
            context.report_job_violation(entry, f"I1: {method} {path} was answered 404")
        context.expect(answer, {404, 409, 429}, f"{method} {path} of {entry.job_id}")
        return answer

    async def _cancel(self, entry: SubmittedJob, *, force: bool = False) -> None:
        entry.cancelled = True
        answer = await self._ask(entry, "POST", "/cancel", {"reason": "soak", "force": force})
        if answer is not None and answer.status == 200 and answer.document()["state"] == "cancelled":
            # A retry that was not answered may still come to pass.
            entry.must_be_cancelled = entry.retries_unknown == 0

    async def _force(self, entry: SubmittedJob) -> None:
        await self._cancel(entry, force=True)

    async def _retry(self, entry: SubmittedJob) -> None:
        # Counted first: the job may end again before the answer is here.
        entry.retries_unknown += 1
        entry.must_be_cancelled = False
        answer = await self._ask(entry, "POST", "/retry")
        if answer is None or answer.status == 503:
            return
        entry.retries_unknown -= 1
        if answer.status == 202:
            entry.retries += 1

    async def _delete(self, entry: SubmittedJob) -> None:
        before, entry.deleted = entry.deleted, "maybe"
        # One that waits is cancelled first, and if the server dies then, it is no more than that.
        entry.cancelled = True
        answer = await self._ask(entry, "DELETE", "")
        if answer is None or answer.status == 503:
            return
        entry.deleted = "yes" if answer.status == 204 else before

    async def _wait(self, entry: SubmittedJob) -> None:
        await self._ask(entry, "GET", "", wait_s=2.0)

    async def _look(self, entry: SubmittedJob) -> None:
        await self._ask(entry, "GET", self._context.rng.choice(("", "/explain", "/attempts")))

    async def _list(self, entry: SubmittedJob) -> None:
        """The newest jobs. The recorded history tells whether the page was right."""
        context = self._context
        try:
            answer = await context.http.request("GET", f"/v1/jobs?limit={ROWS_LISTED}")
        except ConnectionLost:
            return
        context.expect(answer, set(), "a list of the newest jobs")


def _is_free(entry: SubmittedJob) -> bool:
    return not (entry.frozen or entry.busy or entry.deleted != "no")
