"""Effect: takes in what workers say and turns it into changes of jobs, executors and the ledger."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Sequence
from typing import Any

from gpu import escalation
from gpu.escalation import Squeeze
from gpu.view import View
from runner.coordinator.book import Live
from runner.coordinator.dispatch import Dispatch
from runner.coordinator.fleet import Fleet, Worker
from runner.coordinator.learning import Learning
from runner.coordinator.line import Line
from runner.coordinator.memory import Memory
from runner.coordinator.outcome import ran_out
from runner.coordinator.post import Post
from runner.coordinator.relink import Relinks
from runner.wire import (
    STUCK,
    UNDECODABLE,
    Answer,
    Call,
    Devices,
    Ended,
    Gone,
    Hello,
    Loaded,
    Note,
    Numbered,
    Over,
    Processes,
    Readings,
    Recalled,
    Started,
    Up,
    Usage,
    encode,
    up_decoder,
)

log = logging.getLogger(__name__)


class Reports:
    """One method a message. Late news of an old attempt is counted and dropped."""

    def __init__(
        self,
        *,
        line: Line,
        view: View,
        dispatch: Dispatch,
        fleet: Fleet,
        on_devices: Callable[[Devices], None],
        on_readings: Callable[[Readings], None],
        memory: Memory,
        on_over: Callable[[Over], None],
        on_call: Callable[[Worker, Call], None],
        learning: Learning,
        on_back: Callable[[Worker], None],
        on_stuck: Callable[[int, Sequence[str]], set[str]],
        on_cleared: Callable[[int], None],
        on_failed: Callable[[Ended, Sequence[str], str], None],
        from_wall_time: Callable[[float], float],
    ) -> None:
        self._line = line
        self._view = view
        self._dispatch = dispatch
        self._fleet = fleet
        self._memory = memory
        self._learning = learning
        self._on_stuck = on_stuck
        self._on_cleared = on_cleared
        self._on_failed = on_failed
        self._relinks = Relinks(
            dispatch=dispatch, gone=self.executor_gone, recalled=self._recalled, on_back=on_back
        )
        self._from_wall_time = from_wall_time
        self._handlers: dict[type[Any], Callable[[Worker, Any], None]] = {
            Ended: self._ended,
            Note: self._note,
            Started: self._started,
            Loaded: self._loaded,
            Recalled: self._recalled,
            Gone: self._gone,
            Usage: self._usage,
            Call: on_call,
            Devices: lambda _, message: on_devices(message),
            Readings: lambda _, message: on_readings(message),
            Processes: lambda _, message: memory.claim(message),
            Over: lambda _, message: on_over(message),
            Hello: lambda _, message: None,
        }

    def messages(self, worker: Worker, frame: list[bytes]) -> None:
        """A worker's frame."""
        number = 0
        for raw in frame:
            message = self._decoded(worker, raw, is_kept=number > 0)
            if type(message) is Numbered:
                number = message.first
                continue
            if number:
                number += 1
                if number - 1 <= worker.heard:
                    continue
                worker.heard = number - 1
            if message is None:
                continue
            try:
                self._handlers[type(message)](worker, message)
            except Exception:
                self._failed(worker, message, is_kept=number > 0)
        if number:
            self._acknowledge(worker)
        self._relinks.settle(worker)
        self._dispatch.wake()

    def relinked(self, worker: Worker, hello: Hello) -> None:
        """A worker's link was cut and stands again."""
        self._relinks.begin(worker, hello)

    def _decoded(self, worker: Worker, raw: bytes, *, is_kept: bool) -> Up | None:
        """The message; None where it is none. It has its number all the same."""
        try:
            message: Up = up_decoder.decode(raw)
        except UNDECODABLE as error:
            self._line.figures.bad_frames += 1
            log.error("a message of %s does not decode: %s", worker.name, error)
            if is_kept:
                # It may have told of an attempt's end: see `_failed`.
                worker.child.signal(signal.SIGKILL)
            return None
        return message

    def _failed(self, worker: Worker, message: Any, *, is_kept: bool) -> None:
        """The boundary of one message: the others of its frame are taken in all the same.

        What tells of an attempt is told once, and may be half applied: without it the attempt would seem
        to run for ever. So its worker is replaced, and what it held goes again.
        """
        # What a job gave is in the message, and not for the log.
        about = getattr(message, "job_id", "no job")
        log.exception("%s of %s, from %s, failed", type(message).__name__, about, worker.name)
        if is_kept:
            worker.child.signal(signal.SIGKILL)

    def _acknowledge(self, worker: Worker) -> None:
        """Tell the worker, after the commit, that it may forget what it has sent."""
        seq = worker.heard
        self._line.journal.when_durable(
            lambda _: self._fleet.acknowledge(worker, seq), hurry=False, patient=True
        )

    def _current(self, job_id: str, attempt: int) -> Live | None:
        """The job, if this attempt is the one in flight."""
        live = self._line.book.by_id.get(job_id)
        if live is None or live.flight != attempt or live.where == "ended":
            self._line.figures.stale += 1
            return None
        return live

    def _loaded(self, _: Worker, message: Loaded) -> None:
        post = self._dispatch.posts.get(message.executor)
        if post is None:
            return
        post.loaded = True
        self._memory.loaded(post, message)
        self._view.loaded(message.executor, message.resident_bytes, self._line.now())
        self._learning.loaded(post, message)
        self._dispatch.wishes.loaded(post)

    def _started(self, worker: Worker, message: Started) -> None:
        live = self._current(message.job_id, message.attempt)
        if live is None or live.executor is None:
            return
        message.at = self._from_wall_time(message.at)
        post = self._dispatch.posts[live.executor]
        if live.job.attempt < live.flight:
            self._begin(post, live, message.at)
        else:
            self._line.runs(live, message.at)
        if post.spec.options.slots > 1 or self._view.executors[post.executor].long_n is not None:
            # Nothing waits behind it, or was called back because of its mates.
            return
        # First the mark: what is recalled must not be staged here again.
        self._view.takes_long(post.executor, live.job.n)
        self._dispatch.control.recall(post)

    def _begin(self, post: Post, live: Live, at: float) -> None:
        """User code of an attempt runs since then, which was not known to have started."""
        self._line.begin(
            live,
            at=at,
            worker=post.worker.name,
            devices=post.devices,
            loading=False,
            granted_bytes=post.grant_bytes,
            meter=post.meter,
        )

    def _note(self, worker: Worker, message: Note) -> None:
        live = self._current(message.job_id, message.attempt)
        if live is None or live.executor is None:
            return
        if live.job.attempt < live.flight:
            self._begin(self._dispatch.posts[live.executor], live, self._line.now())
        elif message.seq <= live.job.heard:
            return
        self._line.note(live, message)

    def _ended(self, worker: Worker, message: Ended) -> None:
        live = self._current(message.job_id, message.attempt)
        if live is None or live.executor is None:
            return
        post = self._dispatch.posts[live.executor]
        if live.job.attempt < live.flight and (message.started_at is not None or message.code != "cancelled"):
            at = self._line.now() if message.started_at is None else self._from_wall_time(message.started_at)
            self._begin(post, live, at)
        if message.retry_at is not None:
            message.retry_at = self._from_wall_time(message.retry_at)
        if message.leaves:
            # It is known to be gone a little later; nothing may be handed to it meanwhile.
            self._dispatch.control.close(post)
        elif message.grown:
            log.info("executor %d (%s) has grown: a fresh one follows it", post.executor, post.spec.name)
            self._dispatch.control.retire(post)
        if message.code is not None:
            self._on_failed(message, post.devices, post.spec.name)
        if post.grant_bytes:
            self._memory.ended(post, message)
        squeeze = None if message.code is None else self._squeeze(post, live, message)
        self._learning.ended(post, live, message, squeeze)
        if message.peak_bytes is not None:
            self._saw(post, message.peak_bytes)
        self._leave(post, live)
        self._line.end(live, message, squeeze=squeeze)

    def _squeeze(self, post: Post, live: Live, message: Ended) -> Squeeze | None:
        """What stood around an attempt that ran out of device memory; None for all others."""
        if message.shared or live.cls is None:
            return None
        grant_bytes = post.grant_bytes if post.spec.options.gpus else 0
        if not ran_out(message, grant_bytes=grant_bytes):
            return None
        started_at = live.job.started_at or 0.0
        ceiling_bytes = live.job.terms.vram_bytes if post.is_ceiling else None
        return escalation.survey(self._view, live.cls, post.executor, started_at, ceiling_bytes)

    def _leave(self, post: Post, live: Live) -> None:
        """The attempt does not occupy its executor any more."""
        n = live.job.n
        if post.line.pop(n, None) is not None:
            post.sent -= 1
            post.jobs_done += 1
        if live.cls is not None:
            self._view.ended(post.executor, live.cls, n, self._line.now())

    def _saw(self, post: Post, peak_bytes: int) -> None:
        """Until it is looked at again it may hold what the attempt held: figures come once a second, and
        an executor that idles is charged no more than the last of them."""
        is_exact = self._view.ledger.usage.level(post.devices[0]) == "exact"
        # Of those it is known of all devices together.
        share = peak_bytes // len(post.devices) if is_exact else peak_bytes
        self._view.ledger.usage.assume(post.executor, share)

    def _recalled(self, _: Worker, message: Recalled) -> None:
        post = self._dispatch.posts.get(message.executor)
        for job_id, attempt in reversed(message.attempts):
            live = self._current(job_id, attempt)
            if live is None or post is None:
                continue
            post.line.pop(live.job.n, None)
            post.sent -= 1
            if live.cls is not None:
                self._view.ended(post.executor, live.cls, live.job.n, self._line.now(), done=False)
            self._not_started(live)

    def _gone(self, _: Worker, message: Gone) -> None:
        post = self._dispatch.posts.get(message.executor)
        if post is None:
            # It was written off before, or went with its worker.
            self._on_cleared(message.executor)
        elif message.code == STUCK:
            self.executor_gone(message.executor, message, is_dead=False)
            closed = self._on_stuck(message.executor, post.devices)
            for other in list(self._dispatch.posts.values()):
                if not closed.isdisjoint(other.devices):
                    self._dispatch.control.retire(other)
        else:
            self.executor_gone(message.executor, message)

    def executor_gone(self, executor: int, told: Gone | None = None, *, is_dead: bool = True) -> None:
        """Its processes have ended, or were written off. What it still held has not started: back to the
        line. `told` is the worker's word on it, if it had one."""
        post = self._dispatch.posts.pop(executor, None)
        if post is None:
            return
        self._view.gone(executor, self._line.now() if is_dead else None)
        for live in reversed(post.line.values()):
            # An assigned one is put back by whoever was about to send it.
            if live.where != "assigned":
                self._not_started(live)
        if told is None:
            self._dispatch.wishes.gone(post, "interrupted", "its worker is gone")
        else:
            self._dispatch.wishes.gone(post, told.code, told.message, told.detail)

    def _not_started(self, live: Live) -> None:
        if live.job.cancel_reason is not None:
            live.executor = None
            self._line.cancel_waiting(live, live.job.cancel_reason)
        else:
            self._line.put_back(live)

    def _usage(self, _: Worker, message: Usage) -> None:
        for executor, nbytes in message.executors:
            self._view.ledger.usage.record_total(executor, nbytes)

    def worker_lost(self, worker: Worker, why: str) -> None:
        """A worker's process died, and its executors with it: nobody is to blame for what ran."""
        self._relinks.forget(worker)
        lost = self._dispatch.posts.of_worker(worker)
        for post in lost:
            try:
                self._interrupt(post, f"worker {worker.name} ended: {why}")
                self.executor_gone(post.executor)
            except Exception:
                log.exception("executor %d was lost and could not be cleared up", post.executor)
        self._dispatch.wake()

    def _interrupt(self, post: Post, why: str) -> None:
        for live in list(post.line.values()):
            if live.where == "staged":
                # It may have started, untold: its number must not be given to user code again.
                self._begin(post, live, self._line.now())
            if live.where in ("starting", "running"):
                self._leave(post, live)
                self._line.end(live, Ended(live.job.id, live.flight, live.job.heard, "interrupted", why))

    def answer(self, worker: Worker, call: Call, result: Any, error: tuple[str, str] | None) -> None:
        """Answer a handler's call."""
        self._fleet.post(worker, encode(Answer(call.call, call.executor, result, error)))
        self._fleet.flush()
