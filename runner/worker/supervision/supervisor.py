"""Effect: supervises one executor from the command to load it until its last process is gone."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Mapping

from runner.processes.child import WorkerConfig
from runner.protocol import worker as worker_protocol
from runner.protocol.worker import CancelAttempt, LoadExecutor, RunAttempts
from runner.worker.processes import process_tree
from runner.worker.processes.cleanup import DescendantCleanup
from runner.worker.processes.executor_process import ExecutorProcess
from runner.worker.processes.memory_growth import MemoryGrowth
from runner.worker.supervision import exit_status, messages
from runner.worker.supervision.attempts import AssignedAttempt, AttemptQueue
from runner.worker.supervision.crash_report import CHANNEL_LOST, EndCause
from runner.worker.supervision.deadline_monitor import SHUTDOWN_MESSAGE, START_REPORT_S, DeadlineMonitor
from runner.worker.supervision.executor_messages import ExecutorMessages
from runner.worker.supervision.executor_state import ExecutorState
from runner.worker.supervision.exit_status import ExitStatus
from runner.worker.supervision.output_pipes import OutputPipes
from runner.worker.supervision.recalls import Recalls
from runner.worker.supervision.teardown import ExecutorTeardown, report_unstarted
from runner.worker.supervision.termination import Termination
from runner.worker.supervision.worker_link import WorkerLink

#: Seconds from a closed channel to the kill; longest time, in seconds, for an unloading executor to exit.
CHANNEL_GRACE_S, UNLOAD_S = 0.1, 5.0


class Supervisor:
    """Owner of one executor: loading, then accepting attempts, then closing (`Termination`), then dead."""

    def __init__(
        self,
        command: LoadExecutor,
        config: WorkerConfig,
        link: WorkerLink,
        loop: asyncio.AbstractEventLoop,
        launch: Callable[[Mapping[str, str], str], ExecutorProcess],
    ) -> None:
        """Create the supervisor; `launch(env, marker)` starts a process."""
        self.load_command, self.number = command, command.executor
        self._config, self._link, self._loop, self._launch = config, link, loop, launch
        options = command.handler.options
        self.attempts = AttemptQueue(is_batched=options.batch is not None, slots=options.slots)
        self.state = ExecutorState(command, self.attempts, f"{config.name}/{command.executor}")
        #: None if it could not be started.
        self.process: ExecutorProcess | None = None
        self._recalls = Recalls()

    def start(self) -> None:
        """Start the process; if that fails, report it as gone in the next iteration of the loop."""
        config = self._config
        self.state.started_mono = time.monotonic()
        self._oom_kills = process_tree.count_oom_kills()
        env = {**config.executor_env, **self.load_command.env}
        try:
            self.process = process = self._launch(env, self.state.marker)
        except OSError as error:
            message = f"cannot start the executor: {error}"
            self._loop.call_soon(report_unstarted, self.state, self._link, message)
            return
        self._build_parts(process)
        process.attach(
            self._loop,
            on_channel=lambda: self._on_channel(process),
            on_output=self._output_pipes.read_available,
            on_exit=lambda: self._on_exit(process),
            count_attempts=self.attempts.counts,
        )
        process.send([messages.encode_configure(self.load_command, config)])
        if self.load_command.load_timeout_s is not None:
            self._link.wake_at(self.state.started_mono + self.load_command.load_timeout_s)

    @property
    def is_open(self) -> bool:
        """Return whether the executor accepts commands."""
        return self.process is not None and not self.state.is_dead and not self._termination.is_closing

    def run_attempts(self, message: bytes, command: RunAttempts) -> None:
        """Assign attempts; `message` is the encoded command, which is forwarded."""
        if self.process is not None and (not self.is_open or self.state.is_stopping):
            self.attempts.not_started += [(attempt.job_id, attempt.attempt) for attempt in command.attempts]
            return
        added = self.attempts.assign(command.attempts)
        if not self.state.is_loaded and added and self.attempts.entries[0] is added[0]:
            added[0].waited_for_load = True
        if self.process is not None:
            self.process.send([message])
            self._link.wake_at(time.monotonic() + START_REPORT_S)

    def cancel_attempt(self, command: CancelAttempt) -> None:
        """End one attempt; one that has already finished keeps its result."""
        entry = self.attempts.find((command.job_id, command.attempt))
        if entry is None or self.process is None or self.state.is_dead:
            return
        if (
            not self.state.is_loaded
            and entry is self.attempts.entries[0]
            and not self._deadline_monitor.batch_not_ending(entry)
        ):
            self.kill(EndCause(command.code, command.message))
            return
        figures, ordinal = self.process.read_page(), self.attempts.ordinal_of(entry)
        if figures.started < ordinal:
            self._recalls.cancel_when_returned(command)
            self._recall(requested=False)
        elif figures.finished < ordinal or self.attempts.slots > 1:
            self._deadline_monitor.end_attempt(entry, command)

    def recall_unstarted(self) -> None:
        """Recall the unstarted attempts for the coordinator."""
        if self.is_open:
            self._recall(requested=True)

    def unload(self) -> None:
        """Unload an idle executor; one that is still loading is killed."""
        if not self.state.is_loaded:
            self.kill(EndCause("unloaded", "unloaded while loading"))
        elif self.process is not None and self.is_open and not self.attempts.entries:
            self._termination.expect_exit(EndCause("unloaded", "unloaded"), UNLOAD_S)
            self.process.send([worker_protocol.encode(worker_protocol.UnloadExecutor(self.number))])

    def kill(self, cause: EndCause, *, only_if_idle: bool = False) -> None:
        """SIGKILL the executor for this cause; with `only_if_idle`, not if an attempt has started."""
        if (
            self.process
            and not self.state.is_dead
            and not (only_if_idle and self.process.read_page().started)
        ):
            self._termination.kill(cause)

    def forward(self, message: bytes) -> None:
        """Forward a message of the coordinator to the executor."""
        if self.process is not None and not self.state.is_dead:
            self.process.send([message])

    def stop(self) -> None:
        """Shut down: interrupt running attempts, return unstarted ones, then unload."""
        self.state.is_stopping = True
        if not self.state.is_loaded:
            self.kill(EndCause("interrupted", SHUTDOWN_MESSAGE))
        elif self.is_open and self.attempts.entries:
            self._recall(requested=True)
            self._link.wake_at(time.monotonic())
        else:
            self.unload()

    def pause(self, is_paused: bool) -> None:
        """Stop reading while too many messages are unacknowledged; the executor then blocks in its send."""
        if self.process is not None and not self.state.is_dead:
            self.process.set_reading(not is_paused)

    def run_due(self, now: float) -> float | None:
        """Do everything that is due; return when to check again (monotonic), or None."""
        if self.process is None or self.state.is_dead:
            return None
        if self._output_pipes.next_release_at is not None:
            self._output_pipes.release_ended(now)
        deadline_at = self._check_deadlines(self.process, now) if self.is_open else None
        self._termination.run_due(now)
        due = (self._output_pipes.next_release_at, deadline_at, self._termination.next_at)
        return min((at for at in due if at is not None), default=None)

    def drain(self) -> None:
        """Read all remaining messages of a dead executor, even if the window is full, and its held frames."""
        if self.process is None or self.state.is_dead:
            return
        while self._messages.receive()[0]:
            pass
        self._messages.receive(from_page=True)
        for name in list(self.process.output_fds):
            self._output_pipes.read_available(name)

    def wait_for_death(self, until_mono: float) -> None:
        """Wait for a killed executor's death and report the ends of its attempts, without the event loop."""
        if (process := self.process) is not None and not self.state.is_dead:
            while (status := process.reap()) is None and time.monotonic() < until_mono:
                time.sleep(0.002)
            self.drain()
            self._teardown.run(exit_status.from_returncode(status or 0, oom_kills=0))

    def on_usage(self, nbytes: int) -> None:
        """Record the memory that the executor uses now."""
        self.state.usage_bytes = nbytes
        if self.process is not None and not self.state.is_dead:
            for entry in self.attempts.running(self.process.read_page()):
                entry.peak_bytes = max(nbytes, entry.peak_bytes or 0)

    def _build_parts(self, process: ExecutorProcess) -> None:
        config = self._config
        self.cleanup = DescendantCleanup(process.pid, self.state.marker, self._link.own_pids)
        self._memory_growth = MemoryGrowth(self.load_command, config.device_kind)
        self._termination = Termination(
            process,
            recall=lambda: self._recall(requested=True),
            wake_at=self._link.wake_at,
            before_kill=lambda: self.cleanup.track(process_tree.descendant_pids(process.pid)),
            on_stuck=lambda: self._teardown.run(ExitStatus(None, None), is_stuck=True),
        )
        self._deadline_monitor = DeadlineMonitor(
            process, self.attempts, self._termination, self._link.send_reliably
        )
        self._output_pipes = OutputPipes(
            process,
            self.attempts,
            limits=config,
            send=self._link.send_reliably,
            amend_ended=self._amend_ended,
        )
        self._messages = ExecutorMessages(
            self.state,
            process,
            self._link,
            recalls=self._recalls,
            termination=self._termination,
            deadline_monitor=self._deadline_monitor,
            output_pipes=self._output_pipes,
            device_kind=config.device_kind,
            unload=self.unload,
        )
        self._teardown = ExecutorTeardown(
            self.state,
            process,
            self._link,
            self._loop,
            termination=self._termination,
            output_pipes=self._output_pipes,
            cleanup=self.cleanup,
        )

    def _recall(self, *, requested: bool) -> None:
        if self.process is not None:
            self._recalls.on_recall_sent(requested=requested)
            self.process.send([worker_protocol.encode(worker_protocol.RecallAttempts(self.number))])

    def _check_deadlines(self, process: ExecutorProcess, now: float) -> float | None:
        """Check the load deadline, or those of running attempts; return when to check again."""
        if not self.state.is_loaded:
            limit_s = self.load_command.load_timeout_s
            if limit_s is not None and now >= self.state.started_mono + limit_s:
                self.kill(EndCause("load_timeout", f"loading timed out after {limit_s:g} s"))
            return self.state.started_mono + limit_s if limit_s is not None and self.is_open else None
        return self._deadline_monitor.check(now, is_stopping=self.state.is_stopping)

    def _on_channel(self, process: ExecutorProcess) -> None:
        if self._messages.receive()[1] and not self.state.is_dead:
            process.set_reading(False)
            if not self._termination.is_closing:  # guard: closed-channel
                self._loop.call_later(CHANNEL_GRACE_S, self.kill, CHANNEL_LOST)

    def _amend_ended(self, entry: AssignedAttempt, message: bytes) -> bytes:
        """Return the `AttemptEnded` to send, with the facts that only the worker knows."""
        assert self.process is not None
        ladder = self._termination.on_attempt_ended(entry.key)
        amendment = messages.Amendment(
            cause=None if ladder is None else (ladder.code, ladder.message),
            is_blame_unknown=ladder is not None and ladder.is_shared,
            load_s=self.state.load_s if entry.waited_for_load else None,
            peak_bytes=max(entry.peak_bytes or 0, self.state.allocated_bytes) or None,
            executor_closing=self._termination.is_closing,
            has_memory_grown=self._memory_growth.is_excessive(self.process.pid, self.state.allocated_bytes),
        )
        return messages.amend_ended(entry, message, amendment)

    def _on_exit(self, process: ExecutorProcess) -> None:
        # Signal the group before reaping the leader: after that its pid may be reused.
        process.signal_group(signal.SIGKILL)
        self.drain()
        status = process.reap()  # guard: wait-status
        if status is not None:
            self._teardown.run(
                exit_status.from_returncode(
                    status, oom_kills=process_tree.count_oom_kills() - self._oom_kills
                )
            )
