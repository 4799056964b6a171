"""Effect: runs attempts concurrently: coroutines of one handler on the event loop of the main thread."""

from __future__ import annotations

import os
import time
from collections import deque
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NoReturn

from runner.executor import bootstrap, failures
from runner.executor.attempt_run import AttemptRun
from runner.executor.attempt_runner import AttemptRunner
from runner.executor.channel import POLL_S
from runner.executor.context import Context
from runner.executor.environment import ExecutorEnvironment
from runner.executor.loader import LoadedHandler
from runner.protocol import worker as worker_protocol

if TYPE_CHECKING:
    import asyncio

#: The attempt whose coroutine runs; tasks and threads that it starts through asyncio inherit it.
CURRENT_RUN: ContextVar[AttemptRun | None] = ContextVar("runner_attempt", default=None)


class SlotRun(AttemptRun):
    """One of several concurrent attempts; it has a heartbeat of its own."""

    __slots__ = ("slot_index",)

    def __init__(self, attempt: worker_protocol.AttemptSpec, environment: ExecutorEnvironment) -> None:
        super().__init__(attempt, environment)
        #: Its index in the shared page, where its last activity is written.
        self.slot_index = 0

    def touch(self) -> None:
        """Record that the handler is alive."""
        self.environment.page.touch_slot(self.slot_index)


class SlotRunner:
    """Starts staged attempts as long as a slot is free.

    All methods but `wake`, `exit_now`, `flush_due_progress` and `current_run` are for the main thread.
    """

    def __init__(
        self, environment: ExecutorEnvironment, staged: deque[Any], attempt_runner: AttemptRunner
    ) -> None:
        self._environment = environment
        self._staged = staged
        self._attempt_runner = attempt_runner
        self._capture = attempt_runner.capture
        self._invocation = attempt_runner.invocation
        self._loop = attempt_runner.invocation.event_loop()
        self._free_slots = list(range(environment.config.slots))[::-1]
        self._tasks: set[asyncio.Task[None]] = set()
        self._all_done: asyncio.Future[None] | None = None
        #: Running attempts by their key; read by the channel thread.
        self.runs: dict[tuple[str, int], AttemptRun] = {}
        self.is_unloading = False
        #: Set once the handler is loaded.
        self._handler: LoadedHandler | None = None
        self._pid = os.getpid()

    def current_run(self) -> AttemptRun | None:
        """Return the attempt that output printed now belongs to.

        In a thread that no attempt started through asyncio, that is the longest running one.
        """
        run = CURRENT_RUN.get()
        return run if run is not None and not run.is_ended else next(iter(list(self.runs.values())), None)

    def make_run(self, attempt: worker_protocol.AttemptSpec) -> SlotRun:
        """Return the run of an attempt."""
        return SlotRun(attempt, self._environment)

    def exit_now(self) -> None:
        """Exit at once; called by the channel thread.

        Where several attempts run, a raised cancel could hit another one.
        """
        self._loop.call_soon_threadsafe(self._attempt_runner.exit, bootstrap.EXIT_UNUSABLE)

    def wake(self) -> None:
        """Have the loop start staged attempts; called by the channel thread."""
        self._loop.call_soon_threadsafe(self._start_staged)

    def flush_due_progress(self, now: float) -> float | None:
        """Send progress that is due and return when the next is due; called by the channel thread."""
        runs = list(self.runs.values())
        for run in runs:
            run.flush_progress(now)
        due = [run.progress_due for run in runs if run.pending_progress]
        return min([now + POLL_S, *due]) if runs else None

    def serve(self, handler: LoadedHandler, first: AttemptRun | None) -> None:
        """Run attempts until the executor is unloaded."""
        self._handler = handler
        self._capture.follow_runs(self.current_run)
        self._all_done = self._loop.create_future()
        if first is not None:
            self._start(first)
        self._start_staged()
        try:
            self._loop.run_until_complete(self._all_done)
        except SystemExit as error:
            # SystemExit of a task that an attempt started.
            self._exit_with(error)

    def _start_staged(self) -> None:
        if self._handler is None:
            return
        while self._free_slots:
            try:
                attempt = self._staged.popleft()
            except IndexError:
                break
            self._start(self.make_run(attempt))
        assert self._all_done is not None
        if self.is_unloading and not self.runs and not self._all_done.done():
            self._all_done.set_result(None)

    def _exit_with(self, error: SystemExit) -> NoReturn:
        """Exit as a handler asked: the worker reports it as a crash; output up to here still counts."""
        code = bootstrap.exit_code(error)
        if os.getpid() != self._pid:
            os._exit(code)
        for run in list(self.runs.values()):
            run.close()
        self._capture.flush()
        self._attempt_runner.exit(code)

    def _start(self, run: AttemptRun) -> None:
        assert isinstance(run, SlotRun)
        run.slot_index = self._free_slots.pop()
        self.runs[run.key] = run
        self._capture.emit_early(run)
        self._attempt_runner.apply_kept_flags(run)
        task = self._loop.create_task(self._run_attempt(run))
        # Set before a cancel request may check it: the request finds the run from the line above on.
        run.interrupt = lambda: self._cancel(task)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _cancel(self, task: asyncio.Task[None]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(task.cancel)

    async def _run_attempt(self, run: SlotRun) -> None:
        """Run one attempt from its start to its last message."""
        CURRENT_RUN.set(run)
        environment = self._environment
        ended = worker_protocol.AttemptEnded(run.job_id, run.number, 0, None)
        run.started_at = ended.started_at = time.time()
        begin_ns = environment.page.start()
        environment.page.touch_slot(run.slot_index)
        environment.sender.send_message(
            worker_protocol.encode(
                worker_protocol.SlotStarted(run.job_id, run.number, begin_ns / 1e9, run.slot_index)
            )
        )
        is_fatal = False
        try:
            if not run.cancelled and self._handler is not None:
                arguments = self._handler.build_arguments(run.attempt.input, Context(run))
                ended.output = await self._invocation.encode_result_in_loop(
                    run, self._handler.call(*arguments)
                )
        except SystemExit as error:
            self._exit_with(error)
        except BaseException as error:
            found = failures.classify(error)
            failures.clear_frames(error)
            is_fatal = found.is_fatal
            ended.code, ended.message, ended.detail = found.code, found.message, found.detail
            ended.retryable, ended.retry_at = found.retryable, found.retry_at
            if found.code == "device_out_of_memory":
                failures.empty_device_cache()
        self._finish(run, ended, begin_ns, is_fatal=is_fatal)

    def _finish(
        self, run: SlotRun, ended: worker_protocol.AttemptEnded, begin_ns: int, *, is_fatal: bool
    ) -> None:
        if os.getpid() != self._pid:
            # A child that the handler forked returned through here; it must not send as this executor.
            os._exit(0)
        self._environment.page.finish()
        ended.run_s = (time.monotonic_ns() - begin_ns) / 1e9
        if self._environment.torch_memory is not None:
            self._environment.torch_memory.add_peak(ended)
        run.close()
        self._capture.flush_run(run)
        run.complete_ended(ended, executor_closing=is_fatal)
        self._environment.sender.add_ended(run, ended, None, may_wait=False)
        del self.runs[run.key]
        self._free_slots.append(run.slot_index)
        if is_fatal:
            self._attempt_runner.exit(bootstrap.EXIT_UNUSABLE)
        self._start_staged()
