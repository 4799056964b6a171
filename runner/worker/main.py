"""Effect: the worker process: one loop, one connection, one device, and the executors on it.

A worker ends in one of two ways. After `Stop` it stops its executors and exits once they are gone and their
results are acknowledged, or are spooled after `LAST_ACK_S`. When the lifeline closes, the coordinator is
gone: it kills all executors, spools their results and exits.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import gc
import logging
import os
import select
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from runner.processes import child as child_processes
from runner.processes import logs
from runner.processes.child import WorkerConfig
from runner.protocol import worker as worker_protocol
from runner.protocol.worker import (
    Ack,
    AttemptReply,
    AttemptsRecalled,
    CancelAttempt,
    Hello,
    KillExecutor,
    LoadExecutor,
    RecallAttempts,
    RunAttempts,
    SetGrant,
    Stop,
    UnloadExecutor,
    WorkerPing,
    WorkerPong,
)
from runner.worker.coordinator_link import CoordinatorLink
from runner.worker.processes import cleanup, process_tree
from runner.worker.processes.executor_process import ExecutorProcess
from runner.worker.processes.fork_client import ForkClient
from runner.worker.supervision.crash_report import EndCause
from runner.worker.supervision.memory_watchdog import SWEEP_S, MemoryWatchdog
from runner.worker.supervision.supervisor import Supervisor

log = logging.getLogger(__name__)

_PONG = worker_protocol.encode(WorkerPong())

#: Starts an executor; `-P` keeps the current folder out of `sys.path`.
EXECUTOR_COMMAND = (sys.executable, "-P", "-m", "runner.executor")
#: Longest wait, in seconds, for the lock of a device that an earlier worker still holds.
LOCK_WAIT_S = 5.0
#: After `Stop`: longest wait, in seconds, for the last acknowledgements before results are spooled.
LAST_ACK_S = 0.5
#: Longest wait, in seconds, for killed executors when the worker exits.
CLEAR_S = 0.5
#: Options of prctl(2), from linux/prctl.h.
_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 36, 37


class WorkerProcess:
    """Starts and supervises executors as the coordinator orders, until it sends `Stop` or is gone.

    `lifeline` ends when the coordinator is gone; `command` starts an executor.
    """

    def __init__(
        self, config: WorkerConfig, lifeline: socket.socket, command: Sequence[str] = EXECUTOR_COMMAND
    ) -> None:
        self._config, self._lifeline, self._command = config, lifeline, command
        self._link = CoordinatorLink(
            config, on_messages=self._on_messages, on_connect=self._on_connect, on_pause=self._pause
        )
        #: Bound once, since supervisors call it for every event.
        self.send_reliably = self._link.send_reliably
        self._fork_client: ForkClient | None = None
        #: (executor, request id) -> a handler's request without a reply; sent again after a reconnect.
        self._pending_requests: dict[tuple[int, int], bytes] = {}
        self._supervisors: dict[int, Supervisor] = {}
        self._watchdog = MemoryWatchdog(config.device_kind)
        self._is_stopping = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._sweep_timer: asyncio.TimerHandle | None = None

    async def run(self) -> int:
        """Run until the worker must exit; return the exit status."""
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._lifeline.setblocking(False)
        self._loop.add_reader(self._lifeline.fileno(), self._on_lifeline)
        self._link.open(self._loop)
        self._start_fork_client()
        # The objects of the start live until the exit: exclude them from garbage collection.
        gc.freeze()
        await self._done
        self._loop.remove_reader(self._lifeline.fileno())
        self._link.close()
        return 0

    def forward_request(self, request: worker_protocol.AttemptRequest, message: bytes) -> None:
        """Send a handler's request to the coordinator, again after each reconnect until a reply arrives."""
        self._pending_requests[request.executor, request.request_id] = message
        self._link.send_unnumbered(message)

    def on_allocated(self, executor: int) -> None:
        """Record that an executor reported a new amount of simulated device memory."""
        supervisor = self._supervisors.get(executor)
        # A stuck executor may have been given up while one of its frames was being read.
        if supervisor is not None:
            self._watchdog.check_grant(supervisor)
            self._report_over_grant()

    def is_alone(self, executor: int) -> bool:
        """Return whether no other executor has processes."""
        return all(number == executor or other.state.is_dead for number, other in self._supervisors.items())

    def own_pids(self) -> set[int]:
        """Return the pids of processes that the worker itself needs, such as the fork server."""
        pid = None if self._fork_client is None else self._fork_client.pid
        return set() if pid is None else {pid}

    def wake_at(self, mono: float) -> None:
        """Have the periodic check run at this monotonic time or earlier."""
        if self._timer is None or self._timer_at > mono:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(mono, self._run_due)
            # Stored separately: for a time in the past, uvloop's handle does not return it.
            self._timer_at = mono

    def on_executor_gone(self, executor: int) -> None:
        """Forget an executor that has no processes left."""
        del self._supervisors[executor]
        self._pending_requests = {
            key: message for key, message in self._pending_requests.items() if key[0] != executor
        }
        if self._is_stopping and not self._supervisors:
            self._exit_when_acknowledged()

    def _on_connect(self, hello: Hello) -> list[bytes]:
        """Complete the hello with what runs here; return the unnumbered messages to repeat."""
        hello.running = [
            key for each in self._supervisors.values() for key in each.attempts.unreported_attempts()
        ]
        hello.executors = list(self._supervisors)
        return [*self._pending_requests.values(), *self._encode_process_lists(include_unchanged=True)]

    def _pause(self, is_paused: bool) -> None:
        for supervisor in self._supervisors.values():
            supervisor.pause(is_paused)

    def _on_messages(self, messages: list[bytes]) -> None:
        for message in messages:
            try:
                self._handle(message, worker_protocol.to_worker_decoder.decode(message))
            except worker_protocol.UNDECODABLE as error:
                log.error("cannot decode a message of the coordinator: %s", error)

    def _handle(self, message: bytes, command: worker_protocol.ToWorker) -> None:
        match command:
            case RunAttempts():
                supervisor = self._supervisors.get(command.executor)
                if supervisor is not None:
                    supervisor.run_attempts(message, command)
                else:
                    # The executor died while the command was in transit.
                    returned = [(attempt.job_id, attempt.attempt) for attempt in command.attempts]
                    self.send_reliably(worker_protocol.encode(AttemptsRecalled(command.executor, returned)))
            case Ack():
                self._link.acknowledge(command.seq)
                if self._is_stopping and not self._supervisors:
                    self._exit_when_acknowledged()
            case LoadExecutor():
                self._load(command)
            case CancelAttempt():
                for supervisor in self._supervisors.values():
                    supervisor.cancel_attempt(command)
            case AttemptReply():
                self._pending_requests.pop((command.executor, command.request_id), None)
                if command.executor in self._supervisors:
                    self._supervisors[command.executor].forward(message)
            case Stop():
                self._stop()
            case WorkerPing():
                self._link.send_unnumbered(_PONG)
            case RecallAttempts() | UnloadExecutor() | KillExecutor() | SetGrant():
                self._handle_for_executor(command)

    def _handle_for_executor(
        self, command: RecallAttempts | UnloadExecutor | KillExecutor | SetGrant
    ) -> None:
        supervisor = self._supervisors.get(command.executor)
        if supervisor is None:
            return
        match command:
            case RecallAttempts():
                supervisor.recall_unstarted()
            case UnloadExecutor():
                supervisor.unload()
            case KillExecutor():
                cause = EndCause(command.code, command.message, command.detail)
                supervisor.kill(cause, only_if_idle=command.only_if_idle)
            case SetGrant():
                supervisor.load_command.grant_bytes = command.grant_bytes
                supervisor.forward(worker_protocol.encode(command))

    def _load(self, command: LoadExecutor) -> None:
        if command.executor in self._supervisors:
            log.error("executor %d exists already; ignoring the command to load it", command.executor)
            return
        supervisor = Supervisor(command, self._config, self, self._loop, self._launch)
        self._supervisors[command.executor] = supervisor
        supervisor.start()
        supervisor.pause(self._link.is_paused)
        self._watchdog.add_executor(supervisor)
        self._send_process_lists()
        if self._sweep_timer is None:
            self._sweep_timer = self._loop.call_later(SWEEP_S, self._sweep)

    def _launch(self, env: Mapping[str, str], marker: str) -> ExecutorProcess:
        """Start an executor process; all of them are started here."""
        return ExecutorProcess(self._command, env, marker, self._fork_client)

    def _start_fork_client(self) -> None:
        config = self._config
        if config.template and _is_subreaper():
            env = {**config.executor_env, **config.template_env}
            self._fork_client = ForkClient(self._command, config.template, env, config.name)
            self._fork_client.start(self._loop)

    def _run_due(self) -> None:
        """Run everything that is due in all supervisors, and set the timer for the next check."""
        self._timer = None
        now = time.monotonic()
        for supervisor in list(self._supervisors.values()):
            due_mono = supervisor.run_due(now)
            if due_mono is not None:
                self.wake_at(due_mono)

    def _sweep(self) -> None:
        supervisors = list(self._supervisors.values())
        if not supervisors:
            self._sweep_timer = None
            return
        self._sweep_timer = self._loop.call_later(SWEEP_S, self._sweep)
        self._watchdog.sweep(supervisors, self.own_pids())
        self._report_over_grant()
        self._send_process_lists()
        usage = self._watchdog.usage_update(supervisors, time.monotonic())
        if usage:
            self._link.send_unnumbered(worker_protocol.encode(worker_protocol.ExecutorUsage(usage)))

    def _report_over_grant(self) -> None:
        for number, used_bytes in self._watchdog.drain_over_grant():
            self._link.send_unnumbered(worker_protocol.encode(worker_protocol.OverGrant(number, used_bytes)))

    def _send_process_lists(self) -> None:
        for message in self._encode_process_lists():
            self._link.send_unnumbered(message)

    def _encode_process_lists(self, *, include_unchanged: bool = False) -> list[bytes]:
        lists = self._watchdog.process_lists(include_unchanged=include_unchanged)
        return [worker_protocol.encode(worker_protocol.ExecutorProcesses(*each)) for each in lists]

    def _stop(self) -> None:
        self._is_stopping = True
        for supervisor in list(self._supervisors.values()):
            supervisor.stop()
        if not self._supervisors:
            self._exit_when_acknowledged()

    def _exit_when_acknowledged(self) -> None:
        if self._link.has_unacknowledged:
            self._loop.call_later(LAST_ACK_S, self._exit)
        else:
            self._exit()

    def _on_lifeline(self) -> None:
        try:
            if self._lifeline.recv(4096):
                return
        except BlockingIOError:
            return
        except OSError as error:
            log.warning("the lifeline to the coordinator failed: %s", error)
        log.warning("the coordinator is gone; killing all executors")  # guard: ends-with-its-server
        for supervisor in self._supervisors.values():
            supervisor.kill(EndCause("interrupted", "the coordinator is gone"))
        # Spool running attempts as interrupted: the store may not contain the start of a first attempt yet,
        # and its number must not be used again.
        until = time.monotonic() + CLEAR_S
        for supervisor in list(self._supervisors.values()):
            supervisor.wait_for_death(until)
        self._exit()

    def _exit(self) -> None:
        """Exit with no process left behind and no unacknowledged message lost."""
        if self._done.done():
            return
        if self._fork_client is not None:
            self._fork_client.close()
        until = time.monotonic() + CLEAR_S
        cleanup.kill_descendants()
        while process_tree.child_pids(os.getpid()) and time.monotonic() < until:
            time.sleep(0.005)
            cleanup.kill_descendants()
        self._link.spool_unacknowledged()
        self._done.set_result(None)


def main(command: Sequence[str] = EXECUTOR_COMMAND) -> int:
    """Run the worker configured by the lifeline; return its exit status: 3 if the device stays locked."""
    config, lifeline = child_processes.read_config(
        int(sys.argv[sys.argv.index("--lifeline") + 1]), WorkerConfig
    )
    child_processes.ignore_terminal_signals()
    logs.configure(config.log_format, config.log_level, f"worker {config.device}")
    _become_subreaper()
    lock = _lock_device(config.lock_path, lifeline)
    if lock is None:
        return 3
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as loop:
            return loop.run(WorkerProcess(config, lifeline, command).run())
    finally:
        os.close(lock)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's factory if it is installed: lower latency per job for 1.2 MB more memory."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _become_subreaper() -> None:
    """Become the subreaper: processes orphaned by executors become the worker's children and can be found."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        log.warning("cannot become the subreaper: %s", os.strerror(ctypes.get_errno()))


def _is_subreaper() -> bool:
    """Return whether orphans become children here.

    Otherwise executors must not be forked by the fork server.
    """
    answer = ctypes.c_int(0)
    libc = ctypes.CDLL(None)
    return libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(answer), 0, 0, 0) == 0 and answer.value == 1


def _lock_device(path: str, lifeline: socket.socket) -> int | None:
    """Lock the device.

    Return None if another worker holds the lock, or if the coordinator is gone meanwhile.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    until = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() > until:
                log.error(
                    "timed out waiting for %s, which another worker has held for %g s", path, LOCK_WAIT_S
                )
                break
        if select.select([lifeline], [], [], 0.02)[0]:
            break
    os.close(descriptor)
    return None
