"""Effect: answers the fronts: takes in jobs, looks them up, cancels, retries, removes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from runner import control
from runner.coordinator import documents, value_names
from runner.coordinator.archive import Archive
from runner.coordinator.background_tasks import BackgroundTasks
from runner.coordinator.book import Live
from runner.coordinator.dispatch import Dispatch
from runner.coordinator.fronts import Front
from runner.coordinator.job_explainer import JobExplainer
from runner.coordinator.line import Line
from runner.coordinator.pages import current, page
from runner.coordinator.queue_documents import QueueDocuments
from runner.coordinator.removals import Removals
from runner.coordinator.views import Views
from runner.coordinator.watch import Watch
from runner.errors import (
    AlreadyFinished,
    Conflict,
    JobNotFinished,
    NotFound,
    RunnerError,
    ShuttingDown,
    StoreUnavailable,
)
from runner.job import ENDED, Job

log = logging.getLogger(__name__)

_encode = control.encode
_json = msgspec.json.Encoder().encode
#: Jobs of a bulk taken in per turn of the loop: other work goes on in between.
BULK_TURN = 500
#: While the store refuses writes, clients are told to come again after so long.
STORE_RETRY_S = 2.0

#: Status, body, and the seconds after which to try again.
Answer = Callable[..., None]


def problem(error: RunnerError) -> bytes:
    """The body of a refusal, as control.Reply has it; one of many jobs has no status but this."""
    head = {"status": error.status, "code": error.code, "title": error.title, "detail": error.message}
    return _json(head | error.detail)


class Desk:
    """One method a question. What needs the disk goes on in a task; the rest is answered at once."""

    def __init__(
        self,
        *,
        line: Line,
        dispatch: Dispatch,
        archive: Archive,
        watch: Watch,
        views: Views,
        queues: QueueDocuments,
        explainer: JobExplainer,
        wait_for_handler: Callable[[str], Coroutine[Any, Any, None]],
        others: Mapping[type[Any], Callable[[Front, Any], Coroutine[Any, Any, None]]],
    ) -> None:
        self._line = line
        self._dispatch = dispatch
        self._archive = archive
        self._watch = watch
        self._views = views
        self._queues = queues
        self._explainer = explainer
        self._wait_for_handler = wait_for_handler
        self._tasks = BackgroundTasks()
        #: Held by who does something to the job of that id.
        self._acts: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._removals = Removals(line, archive)
        #: Set when shutdown has begun: nothing is taken in any more.
        self.closed = False
        self._answers: dict[type[Any], Callable[[Front, Any], Coroutine[Any, Any, None] | None]] = {
            control.Submit: self._submit,
            control.GetJob: self._get,
            control.ListJobs: self._list,
            control.Act: self._act,
            control.Look: self._look,
            control.SetQueue: self._set_queue,
            control.AwaitHandler: self._await_handler,
            control.ReadEvents: self._read_events,
            control.Watch: lambda front, ask: self._watch.add(front, ask.job_id),
            control.Unwatch: lambda front, ask: self._watch.remove(front, ask.job_id),
            **others,
        }

    def question(self, front: Front, ask: control.ToCoordinator) -> None:
        """Answer, now or later; a refusal becomes a problem document."""
        try:
            later = self._answers[type(ask)](front, ask)
        except RunnerError as error:
            self._refuse(front, ask, error)
            return
        except Exception:
            self._failed(front, ask)
            return
        if later is not None:
            self._tasks.start(self._guarded(front, ask, later))

    async def _guarded(self, front: Front, ask: Any, answer: Coroutine[Any, Any, None]) -> None:
        try:
            await answer
        except RunnerError as error:
            self._refuse(front, ask, error)
        except Exception:
            self._failed(front, ask)

    def _failed(self, front: Front, ask: Any) -> None:
        """The boundary of one question: whatever went wrong with it, the others go on."""
        log.exception("a question of a front failed: %s", type(ask).__name__)
        self._refuse(front, ask, RunnerError("the coordinator failed over this request; see its log"))

    def _refuse(self, front: Front, ask: Any, error: RunnerError) -> None:
        unavailable_s = STORE_RETRY_S if isinstance(error, StoreUnavailable) else None
        retry_after_s = error.detail.get("retry_after_s", unavailable_s)
        front.send(_encode(control.Reply(ask.rid, error.status, problem(error), retry_after_s)))

    # Submit.

    def _submit(self, front: Front, ask: control.Submit) -> Coroutine[Any, Any, None] | None:
        if self.closed:
            raise ShuttingDown("the server is shutting down; try again in a moment", retry_after_s=5.0)
        if self._line.journal.failure is not None:
            raise StoreUnavailable(self._line.journal.failure.message)
        if ask.bulk:
            return self._submit_bulk(front, ask)
        self._check_new(ask.jobs[0].id)
        live = self._line.submit(ask.jobs[0])
        self._line.figures.submitted += 1
        answer = self._answer_once(front, ask.rid)
        if ask.wait_s is not None:
            self._reply_at_end(answer, live, ask.wait_s, late_status=202)

        def durable(failure: StoreUnavailable | None) -> None:
            if failure is not None:
                self._withdraw(live)
                answer(failure.status, problem(failure), STORE_RETRY_S)
            elif ask.wait_s is None:
                answer(202, self._document(live))

        # Who waits for the end need not have the beginning hurried: mostly one commit holds both.
        self._line.journal.when_durable(durable, hurry=ask.wait_s is None)  # guard: answer-when-durable
        return None

    def _answer_once(self, front: Front, rid: int) -> Answer:
        """Sends the first answer that is given, and no other."""
        open_ = True

        def answer(status: int, body: bytes, retry_after_s: float | None = None) -> None:
            nonlocal open_
            if open_:
                open_ = False
                front.send(_encode(control.Reply(rid, status, body, retry_after_s)))

        return answer

    def _check_new(self, job_id: str) -> None:
        if job_id in self._line.book.by_id:
            raise Conflict(f"there is a job {job_id} already")

    def _withdraw(self, live: Live) -> None:
        """The store could not take it: it was never accepted."""
        # A part of a bulk may have been stored, and gone to sleep; then only its place tells of it.
        live = self._line.book.by_n.get(live.job.n, live)
        if live.where == "asleep" and self._line.waiting.where(live.job) is None:
            return
        if live.executor is None and live.where != "ended":
            self._line.waiting.leave(live)
            self._line.waiting.sleep.drop_input(live)
            live.where = "ended"
            self._line.journal.withdraw(live.job)
            self._line.book.discount(live.job)
            self._line.book.forget(live)

    async def _submit_bulk(self, front: Front, ask: control.Submit) -> None:
        answers: list[bytes] = []
        taken: list[Live] = []
        for index, asked in enumerate(ask.jobs):
            try:
                self._check_new(asked.id)
                taken.append(self._line.submit(asked))
                answers.append(b"null")
            except RunnerError as error:
                answers.append(problem(error))
            if index % BULK_TURN == BULK_TURN - 1:
                await asyncio.sleep(0)
        self._line.figures.submitted += len(taken)
        try:
            await self._line.journal.flush()
        except StoreUnavailable:
            for live in taken:
                self._withdraw(live)
            raise
        front.send(_encode(control.Reply(ask.rid, 202, b"[%s]" % b",".join(answers))))

    def _document(self, live: Live) -> bytes:
        reason = self._line.waiting.reasons.of_live(live)
        return documents.job_document(live.job, reason, live.input, live.output)

    def _reply_at_end(self, answer: Answer, live: Live, wait_s: float, *, late_status: int) -> None:
        """Answer when the job's end is durable, or with what is known when `wait_s` is over."""

        def at_end(ended: Live) -> None:
            timer.cancel()
            answer(200, self._document(ended))

        def late() -> None:
            if live.waiters is not None and at_end in live.waiters:
                live.waiters.remove(at_end)
            self._line.journal.when_durable(accepted)
            self._line.waiting.sleep.rest(live)

        def accepted(failure: StoreUnavailable | None) -> None:
            if failure is not None:
                answer(failure.status, problem(failure), STORE_RETRY_S)
            else:
                answer(200 if live.where == "ended" else late_status, self._document(live))

        timer = asyncio.get_running_loop().call_later(wait_s, late)
        if live.waiters is None:
            live.waiters = []
        live.waiters.append(at_end)
        if live.where == "ended":
            self._line.journal.hurry()

    # Look up.

    async def _get(self, front: Front, ask: control.GetJob) -> None:
        live = await current(self._line, self._archive, ask.job_id, rouse=ask.wait_s is not None)
        if live is None:
            job = await self._archive.job(ask.job_id)
            body = await self._archive.document(job, self._line.waiting.reasons.of_stored(job))
            front.send(_encode(control.Reply(ask.rid, 200, body)))
            return
        if ask.wait_s is not None and self._line.book.by_id.get(ask.job_id) is live:
            self._reply_at_end(self._answer_once(front, ask.rid), live, ask.wait_s, late_status=200)
            return
        front.send(_encode(control.Reply(ask.rid, 200, self._document(live))))

    async def _list(self, front: Front, ask: control.ListJobs) -> None:
        body = await self._archive.page(ask.query, self._line.book, self._line.waiting)
        front.send(_encode(control.Reply(ask.rid, 200, body)))

    async def _read_events(self, front: Front, ask: control.ReadEvents) -> None:
        front.send(_encode(await page(self._line, self._archive, ask)))

    # Act.

    async def _act(self, front: Front, ask: control.Act) -> None:
        # They look into the store before they change anything: two at once would both find the job there.
        lock = self._acts.get(ask.job_id)
        if lock is None:
            lock = self._acts[ask.job_id] = asyncio.Lock()
        async with lock:
            match ask.verb:
                case "cancel":
                    await self._cancel(front, ask)
                case "retry":
                    await self._retry(front, ask)
                case "delete":
                    await self._delete(front, ask)

    async def _cancel(self, front: Front, ask: control.Act) -> None:
        live = await current(self._line, self._archive, ask.job_id, rouse=True)
        if live is None or live.where == "ended":
            job = live.job if live is not None else await self._archive.job(ask.job_id)
            raise AlreadyFinished(f"job {job.id} has already ended as {job.state}", state=job.state)
        at_once = self._dispatch.cancel(live, ask.reason or "cancelled by request", force=ask.force)
        await self._line.journal.flush()
        front.send(_encode(control.Reply(ask.rid, 200 if at_once else 202, self._document(live))))

    async def _retry(self, front: Front, ask: control.Act) -> None:
        if self.closed:
            raise ShuttingDown("the server is shutting down; try again in a moment", retry_after_s=5.0)
        job = await self._ended_job(ask.job_id, "retried")
        input_ = await self._archive.input(job.n)
        if ask.job_id in self._line.book.by_id:
            raise JobNotFinished(f"job {job.id} is being retried already", state="queued")
        live = self._line.revive(job, input_)
        await self._line.journal.flush()
        front.send(_encode(control.Reply(ask.rid, 202, self._document(live))))

    async def _delete(self, front: Front, ask: control.Act) -> None:
        live = await self._line.waiting.sleep.rouse(ask.job_id)
        if live is not None and live.where in ("waiting", "delayed", "behind"):
            self._dispatch.cancel(live, "deleted", force=False)
            await self._line.journal.flush()
        job = await self._ended_job(ask.job_id, "deleted")
        await self._removals.remove(job)
        front.send(_encode(control.Reply(ask.rid, 204)))

    async def _ended_job(self, job_id: str, what: str) -> Job:
        if job_id in self._removals:
            # It is not gone before that is durable: until then this is refused as the first request was.
            await self._line.journal.flush()
            raise NotFound(f"there is no job {job_id}")
        live = self._line.book.by_id.get(job_id)
        if live is not None and live.where == "ended":
            await self._line.journal.flush()
            live = None
        job = live.job if live is not None else await self._archive.job(job_id)
        if job.state not in ENDED:
            first = "cancel it first" if what == "deleted" else "wait for its end"
            message = f"job {job_id} is {job.state} and cannot be {what} now: {first}"
            raise JobNotFinished(message, state=job.state)
        return job

    async def _set_queue(self, front: Front, ask: control.SetQueue) -> None:
        self._line.view.backlog.pause_queue(ask.name, ask.paused)
        self._line.journal.value(value_names.queue_paused(ask.name), b"true" if ask.paused else None)
        self._dispatch.wake()
        await self._line.journal.flush()
        front.send(_encode(control.Reply(ask.rid, 200, _json(self._queues.build(ask.name)))))

    async def _await_handler(self, front: Front, ask: control.AwaitHandler) -> None:
        await self._wait_for_handler(ask.name)
        if ask.name not in self._line.waiting.handlers.specs:
            self._line.waiting.handlers.require(ask.name)
        front.send(_encode(control.Reply(ask.rid, 200)))

    # Documents.

    async def _look(self, front: Front, ask: control.Look) -> None:
        match ask.what:
            case "output" | "file" | "attempts" | "explain":
                body = await self._look_job(ask)
            case "metrics":
                body = self._views.metrics()
            case "ready":
                status, document = self._views.ready()
                front.send(_encode(control.Reply(ask.rid, status, _json(document))))
                return
            case _:
                body = _json(self._views.document(ask.what, ask.subject))
        front.send(_encode(control.Reply(ask.rid, 200, body)))

    async def _look_job(self, ask: control.Look) -> bytes:
        job_id = ask.subject or ""
        live = self._line.book.by_id.get(job_id)
        job = live.job if live is not None else await self._archive.job(job_id)
        match ask.what:
            case "attempts":
                return documents.attempts_document(job)
            case "explain":
                return _json(self._explainer.explain(job, live))
            case "output":
                return await self._output(job, live)
            case _:
                return self._archive.file_document(job, ask.name or "")

    async def _output(self, job: Job, live: Live | None) -> bytes:
        if job.state not in ENDED:
            raise JobNotFinished(f"job {job.id} is {job.state}; its output is not there yet", state=job.state)
        if live is not None and live.output is not None:
            await self._line.journal.flush()
            return live.output
        return await self._archive.output(job)
