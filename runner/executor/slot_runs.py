"""Effect: runs attempts concurrently: coroutines of one handler on the event loop of the main thread."""

from __future__ import annotations

from collections import deque
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from runner.executor import bootstrap
from runner.executor.attempt_run import AttemptRun
from runner.executor.attempt_runner import AttemptRunner
from runner.executor.channel import POLL_S
from runner.executor.context import Context
from runner.executor.environment import ExecutorEnvironment
from runner.executor.loader import LoadedHandler
from runner.executor.started_run import StartedRun
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

    `find`, `raise_cancelled`, `flush_due_progress` and `wake` are called by the channel thread, `current_run`
    by every thread that prints, the other methods by the main thread.
    """

    def __init__(self, attempt_runner: AttemptRunner, slot_count: int, staged: deque[Any]) -> None:
        self._attempt_runner = attempt_runner
        self._staged = staged
        self._loop = attempt_runner.invocation.event_loop()
        self._free_slots = list(range(slot_count))[::-1]
        self._tasks: set[asyncio.Task[None]] = set()
        self._all_done: asyncio.Future[None] | None = None
        #: Running attempts by their key, in the order of their start.
        self._runs: dict[tuple[str, int], SlotRun] = {}
        #: The attempt that the load is attributed to. It is not running: a cancel waits for its start.
        self._load_owner: SlotRun | None = None
        self.is_unloading = False
        #: Set once the handler is loaded.
        self._handler: LoadedHandler | None = None
        self._environment: ExecutorEnvironment | None = None
        attempt_runner.capture.follow_runs(self.current_run, is_concurrent=True)

    def current_run(self) -> AttemptRun | None:
        """Return the attempt that output printed now belongs to.

        In a thread that no attempt started through asyncio, that is the longest running one.
        """
        run = CURRENT_RUN.get()
        if run is not None and not run.is_ended:
            return run
        return next(iter(list(self._runs.values())), self._load_owner)

    def find(self, key: tuple[str, int]) -> AttemptRun | None:
        """Return the attempt with this key, if it runs."""
        return self._runs.get(key)

    def raise_cancelled(self, _: tuple[str, int]) -> None:
        """Exit with status 72: an exception raised in the main thread could hit another attempt."""
        self._loop.call_soon_threadsafe(self._attempt_runner.exit, bootstrap.EXIT_UNUSABLE)

    def wake(self) -> None:
        """Have the loop start staged attempts, or end if the executor unloads."""
        self._loop.call_soon_threadsafe(self._start_staged)

    def flush_due_progress(self, now: float) -> float | None:
        """Send progress that is due by `now`; return when the next is due (None: nothing runs).

        Both are monotonic seconds.
        """
        runs = list(self._runs.values())
        for run in runs:
            run.flush_progress(now)
        due = [run.progress_due for run in runs if run.pending_progress]
        return min([now + POLL_S, *due]) if runs else None

    def take_load_owner(self, environment: ExecutorEnvironment) -> AttemptRun | None:
        """Take the first staged attempt, which the load is attributed to; None if none is staged."""
        try:
            self._load_owner = SlotRun(self._staged.popleft(), environment)
        except IndexError:
            return None
        self._attempt_runner.capture.emit_early(self._load_owner)
        return self._load_owner

    def serve(self, handler: LoadedHandler, environment: ExecutorEnvironment) -> None:
        """Run the owner of the load and everything staged after it; return once the executor unloads."""
        self._handler, self._environment = handler, environment
        self._all_done = self._loop.create_future()
        first, self._load_owner = self._load_owner, None
        if first is not None:
            self._start(first)
            del first
        self._start_staged()
        try:
            self._loop.run_until_complete(self._all_done)
        except SystemExit as error:
            # SystemExit of a task that an attempt started.
            self._attempt_runner.exit_as_asked(error)

    def _start_staged(self) -> None:
        if self._environment is None:
            return
        while self._free_slots:
            try:
                attempt = self._staged.popleft()
            except IndexError:
                break
            self._start(SlotRun(attempt, self._environment))
        assert self._all_done is not None
        if self.is_unloading and not self._runs and not self._all_done.done():
            self._all_done.set_result(None)

    def _start(self, run: SlotRun) -> None:
        run.slot_index = self._free_slots.pop()
        self._runs[run.key] = run
        # Now, not in the task: the kept cancel requests are dropped when the next attempt is prepared.
        self._attempt_runner.prepare(run)
        task = self._loop.create_task(self._run_attempt(run))
        # A cancel request that comes before this line is seen by the task when it begins.
        run.interrupt = lambda: self._cancel(task)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _cancel(self, task: asyncio.Task[None]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(task.cancel)

    async def _run_attempt(self, run: SlotRun) -> None:
        """Run one attempt in its slot, and start the next staged one in that slot."""
        CURRENT_RUN.set(run)
        started = self._attempt_runner.begin(run)
        run.touch()
        run.environment.sender.send_message(
            worker_protocol.encode(
                worker_protocol.SlotStarted(run.job_id, run.number, started.begin_ns / 1e9, run.slot_index)
            )
        )
        try:
            if not run.cancelled:
                await self._call_handler(run, started)
        except BaseException as error:
            self._attempt_runner.fail(started, error)
        self._attempt_runner.finish(started)
        del self._runs[run.key]
        self._free_slots.append(run.slot_index)
        self._start_staged()

    async def _call_handler(self, run: SlotRun, started: StartedRun) -> None:
        assert self._handler is not None
        arguments = self._handler.build_arguments(run.attempt.input, Context(run))
        value = self._handler.call(*arguments)
        encode = self._attempt_runner.invocation.encode_result_in_loop
        output = await encode(run, value, self._handler.results)
        started.endings[run.key].output = output
