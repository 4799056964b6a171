"""Effect: reports the end of an executor and of its attempts, once its descendants are gone.

The ends of attempts are sent first, so that jobs do not wait for the cleanup; the executor is reported as
gone after it, because its memory is free only then.
"""

from __future__ import annotations

import logging
import time
from asyncio import AbstractEventLoop
from typing import Any

from runner.protocol import worker as worker_protocol
from runner.protocol.worker import STUCK, ExecutorGone
from runner.worker.processes.cleanup import DescendantCleanup
from runner.worker.processes.executor_process import ExecutorProcess
from runner.worker.supervision import messages
from runner.worker.supervision.crash_report import CrashReport, ReportedEnd, assign_blame
from runner.worker.supervision.executor_state import ExecutorState
from runner.worker.supervision.exit_status import ExitStatus
from runner.worker.supervision.output_pipes import OutputPipes
from runner.worker.supervision.termination import Termination
from runner.worker.supervision.worker_link import WorkerLink

log = logging.getLogger(__name__)


class ExecutorTeardown:
    """Teardown of one executor that was started; `run` is called once."""

    def __init__(
        self,
        state: ExecutorState,
        process: ExecutorProcess,
        link: WorkerLink,
        loop: AbstractEventLoop,
        *,
        termination: Termination,
        output_pipes: OutputPipes,
        cleanup: DescendantCleanup,
    ) -> None:
        self._state, self._process, self._link, self._loop = state, process, link, loop
        self._termination, self._output_pipes, self._cleanup = termination, output_pipes, cleanup

    def run(self, exit_status: ExitStatus, *, is_stuck: bool = False) -> None:
        """Report how each of its attempts ended, then clean up and report that the executor is gone.

        `is_stuck`: its process survived SIGKILL.
        """
        state, attempts = self._state, self._state.attempts
        self._output_pipes.close()
        figures = self._process.read_page()
        stderr_tail = messages.stderr_tail(attempts.last_started(figures), self._output_pipes.stderr_tail)
        crash_report = assign_blame(
            attempts,
            figures,
            was_loading=not state.is_loaded,
            ladders=self._termination.ladders,
            cause=self._termination.cause,
            exit_status=exit_status,
            stderr_tail=stderr_tail,
        )
        state.is_dead = True
        run_s = time.monotonic() - figures.started_mono if state.is_loaded and figures.started else None
        load_s = state.load_s or time.monotonic() - state.started_mono
        for end in crash_report.ends:
            self._link.send_reliably(
                messages.encode_ended(end, time.time(), run_s, load_s if end.entry.waited_for_load else None)
            )
        attempts.not_started = crash_report.not_started + attempts.not_started
        attempts.entries.clear()
        self._process.close()
        if is_stuck:
            self._on_clear(False, crash_report)
        else:
            self._cleanup.kill_all(
                self._loop,
                is_alone=lambda: self._link.is_alone(state.number),
                on_done=lambda is_clear: self._on_clear(is_clear, crash_report),
            )

    def _on_clear(self, is_clear: bool, crash_report: CrashReport) -> None:
        """Report the executor as gone, or as stuck if a process is left, and later that it is gone."""
        state, link = self._state, self._link
        if is_clear:
            _report_gone(state, link, crash_report.code, crash_report.message, crash_report.detail)
            return
        log.error("executor %s survived SIGKILL; giving up on it", state.marker)
        _report_gone(state, link, STUCK, "a process of the executor survived SIGKILL")
        cleared = worker_protocol.encode(ExecutorGone(state.number, "cleared", "the stuck process is gone"))
        self._cleanup.sweep_until_gone(self._loop, lambda: link.send_reliably(cleared))


def report_unstarted(state: ExecutorState, link: WorkerLink, message: str) -> None:
    """Report that the process could not be started; the first attempt is blamed."""
    attempts = state.attempts
    for entry in attempts.entries[:1]:
        link.send_reliably(messages.encode_ended(ReportedEnd(entry, "worker_crashed", message), time.time()))
    attempts.not_started += [entry.key for entry in attempts.entries[1:]]
    state.is_dead = True
    _report_gone(state, link, "worker_crashed", message)


def _report_gone(state: ExecutorState, link: WorkerLink, code: str, message: str, detail: Any = None) -> None:
    """Report the executor as gone, with its unstarted attempts, and have the worker forget it."""
    link.send_reliably(
        worker_protocol.encode(ExecutorGone(state.number, code, message, state.attempts.not_started, detail))
    )
    link.on_executor_gone(state.number)
