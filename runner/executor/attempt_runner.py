"""Effect: begins, fails and ends attempts; the only place that does, for single runs, batches and slots."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Sized
from typing import NoReturn

from runner.executor import bootstrap, failures
from runner.executor.active_run import ActiveRun
from runner.executor.invocation import Invocation
from runner.executor.output_capture import OutputCapture
from runner.executor.sender import Sender
from runner.executor.shared_page import SharedPage
from runner.executor.started_run import StartedRun
from runner.protocol import worker as worker_protocol

#: Longest wait until the worker has read the last messages; seconds.
FLUSH_TIMEOUT_S = 5.0
#: Bound on cancel requests kept for attempts that are neither staged nor running at that instant.
UNMATCHED_MAX = 64


class AttemptRunner:
    """The flow of every attempt: `prepare`, `begin`, the call of the handler, `fail` if it raised, `finish`.

    `SequentialRunner` and `SlotRunner` decide when a run begins and call the handler in between. All methods
    but `keep_flag` are for the main thread.
    """

    def __init__(self, page: SharedPage, sender: Sender, staged: Sized) -> None:
        self._page, self._sender = page, sender
        #: Work that is assigned and not started. Ends may wait for the next one only while there is some.
        self._staged = staged
        self.capture = OutputCapture()
        self.invocation = Invocation()
        self._unmatched_flags: deque[worker_protocol.RequestCancel] = deque(maxlen=UNMATCHED_MAX)
        #: Begun and not finished: one run, or one for each busy slot.
        self._open_runs: list[ActiveRun] = []
        self._pid = os.getpid()

    def keep_flag(self, flag: worker_protocol.RequestCancel) -> None:
        """Keep a cancel request for an attempt that may be between the queue and its start.

        Called by the channel thread. Above 64 requests the oldest is dropped.
        """
        self._unmatched_flags.append(flag)

    def prepare(self, run: ActiveRun) -> None:
        """Give the run the text printed before it and the cancel requests that came for it.

        Called as soon as the channel thread can find the run: a request that comes later finds it by itself.
        All kept requests are dropped, because each of them is for this run or for one that has ended.
        """
        self.capture.emit_early(run)
        for flag in list(self._unmatched_flags):
            found = run.find((flag.job_id, flag.attempt))
            if found is not None and not found.cancelled:
                found.request_cancel(flag.reason)
        self._unmatched_flags.clear()

    def begin(self, run: ActiveRun) -> StartedRun:
        """Apply the latest grant to torch and record the start; user code follows at once."""
        if run.environment.torch_memory is not None:
            run.environment.torch_memory.enforce_cap()
        self._open_runs.append(run)
        started_at = time.time()
        return StartedRun(run, started_at=started_at, begin_ns=self._page.start(len(run.items)))

    def fail(self, started: StartedRun, error: BaseException) -> None:
        """Fail the attempts that the handler received; exit instead if the exception is SystemExit."""
        if isinstance(error, SystemExit):
            self.exit_as_asked(error)
        started.write_failure(error, started.run.members)

    def finish(self, started: StartedRun) -> None:
        """Record the end and send the `AttemptEnded` of each attempt.

        Exits with status 72 if the process must not run another attempt.
        """
        if os.getpid() != self._pid:
            # A child that the handler forked returned through here; it must not send as this executor.
            os._exit(0)
        run, environment = started.run, started.run.environment
        if started.is_out_of_memory:
            failures.empty_device_cache()
        self._page.finish(len(run.items))
        run_s = (time.monotonic_ns() - started.begin_ns) / 1e9
        endings = list(started.endings.values())
        if environment.torch_memory is not None:
            environment.torch_memory.add_peak(endings[0])
        run.close()
        output_mark = self.capture.flush_run(run)
        must_exit = started.is_fatal or run.raise_requested
        for item, ended in zip(run.items, endings, strict=True):
            ended.run_s = run_s
            ended.peak_bytes, ended.reserved_bytes = endings[0].peak_bytes, endings[0].reserved_bytes
            item.complete_ended(ended, executor_closing=must_exit)
        # With slots the page holds heartbeats where an end that waits would be kept.
        may_wait = bool(self._staged) and not must_exit and environment.config.slots == 1
        self._sender.add_ended(run.items, endings, output_mark, may_wait=may_wait)
        self._open_runs.remove(run)
        leftovers = self.capture.take_leftovers()
        if leftovers is not None:
            self._sender.send_message(worker_protocol.encode(leftovers))
        if must_exit:
            self.exit(bootstrap.EXIT_UNUSABLE)

    def exit_as_asked(self, error: SystemExit) -> NoReturn:
        """Exit with the status that user code asked for.

        No end is sent: the worker reports a crash. Output up to here still counts.
        """
        code = bootstrap.exit_code(error)
        if os.getpid() != self._pid:
            os._exit(code)
        for run in list(self._open_runs):
            run.close()
        self.capture.flush()
        self.exit(code)

    def exit(self, code: int) -> NoReturn:
        """Send unsent messages, for 5 s at most, and end the process with this status."""
        self._sender.flush_until(FLUSH_TIMEOUT_S)
        os._exit(code)
