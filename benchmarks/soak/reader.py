"""Effect: readers of streams: ones that keep count over cuts, slow ones, and ones that never read."""

from __future__ import annotations

import asyncio
import json
import zlib

from benchmarks.soak.http_client import Connection, ConnectionLost, SoakResponse
from benchmarks.soak.ledger import SubmittedJob
from benchmarks.soak.recorder import SseEvent
from benchmarks.soak.run_context import RunContext

#: Share of the accepted jobs that have a reader which keeps count.
SHARE = 0.12
READERS_MAX = 24
IDLERS_MAX = 5


class Readers:
    """All readers of a run."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._tasks: set[asyncio.Task[None]] = set()
        self._idlers = 0

    def maybe_follow(self, entry: SubmittedJob) -> None:
        """A job was accepted: it may get a reader, or one that wastes its stream."""
        context = self._context
        is_wasteful = context.rng.random() < (0.5 if entry.draft.kind == "flood" else 0.01)
        if is_wasteful and self._idlers < IDLERS_MAX:
            self._begin(self._read_slowly(entry, slow=context.rng.random() < 0.5))
        elif len(self._tasks) < READERS_MAX and context.rng.random() < SHARE:
            self._begin(self._follow(entry))

    async def close(self) -> None:
        """End them; back when all are gone."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, work: object) -> None:
        assert asyncio.iscoroutine(work)
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._context.report_violation(f"a reader failed: {task.exception()!r}")

    async def _follow(self, entry: SubmittedJob) -> None:
        """Read to the end of the job, hanging up now and then, going on from the last id."""
        context, after, first = self._context, 0, True
        while not context.is_over.is_set() and not entry.frozen:
            if not first:
                context.counts["sse reconnects"] += 1
                await asyncio.sleep(context.rng.uniform(0.05, 0.5))
            try:
                stream = await context.http.stream(
                    f"/v1/jobs/{entry.job_id}/events", None if first else after
                )
            except ConnectionLost:
                first = first and after == 0
                continue
            first = False
            if isinstance(stream, SoakResponse):
                if stream.status == 204 or (stream.status == 404 and entry.deleted != "no"):
                    return
                context.expect(stream, set(), f"a stream of {entry.job_id} from {after}")
                continue
            # A reader that hangs up after this number of events; most do not.
            left = context.rng.choice((3, 10, 40, 10_000, 10_000))
            cursor = StreamCursor(context, entry, after)
            try:
                async for event in stream.events():
                    cursor.check(event)
                    left -= 1
                    if left <= 0:
                        break
            except ConnectionLost:
                context.counts["sse cuts"] += 1
            finally:
                stream.close()
            after = cursor.after

    async def _read_slowly(self, entry: SubmittedJob, *, slow: bool) -> None:
        """Open the stream and take a byte a second of it, or nothing at all."""
        context = self._context
        connection = Connection(context.http.port)
        self._idlers += 1
        context.counts["slow readers" if slow else "readers that never read"] += 1
        try:
            async with asyncio.timeout(context.rng.uniform(5.0, 60.0)):
                await connection.send("GET", f"/v1/jobs/{entry.job_id}/events", b"", {})
                while slow and await connection.read_some(1):
                    await asyncio.sleep(1.0)
                await context.is_over.wait()
        except (OSError, EOFError, TimeoutError):
            # It was cut, or has idled for long enough: it promised nothing.
            return
        finally:
            self._idlers -= 1
            connection.close()


class StreamCursor:
    """What one connection of a reader must see: each number after the last one, or a gap told before."""

    def __init__(self, context: RunContext, entry: SubmittedJob, after: int) -> None:
        self._context = context
        self._entry = entry
        self.after = after
        self._first = True

    def check(self, event: SseEvent) -> None:
        """One event as it came."""
        context, entry = self._context, self._entry
        if self._first:
            self._first = False
            if event.name != "snapshot":
                context.report_job_violation(
                    entry, f"I5: a stream began with {event.name}, not with a snapshot"
                )
        if event.name == "gap":
            context.counts["gaps"] += 1
            gap = json.loads(event.data)
            # Far fewer events than are kept: only who deletes a job takes some.
            if entry.deleted == "no":
                context.report_job_violation(
                    entry, f"I5: a gap {gap} was told after event {self.after}, and nothing is gone"
                )
            if gap["from"] != self.after + 1:
                context.report_job_violation(
                    entry, f"I5: a gap from {gap['from']} was told after event {self.after}"
                )
            self.after = gap["to"]
        if event.id is None:
            return
        context.counts["events seen live"] += 1
        if event.id != self.after + 1:
            context.report_job_violation(
                entry, f"I5: event {event.id} followed event {self.after} without a gap"
            )
        checksum = zlib.crc32(event.data)
        if entry.seen.setdefault(event.id, checksum) != checksum:
            context.report_job_violation(entry, f"I5: event {event.id} has changed between two looks")
        self.after = event.id
