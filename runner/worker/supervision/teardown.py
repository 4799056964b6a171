"""Effect: reports the end of an executor and of its attempts, once what it left behind is cleared up."""

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
from runner.worker.supervision.crash_report import AttemptEnd, CrashReport, assign_blame
from runner.worker.supervision.executor_state import ExecutorState
from runner.worker.supervision.exit_status import ExitStatus
from runner.worker.supervision.output_pipes import OutputPipes
from runner.worker.supervision.termination import Termination
from runner.worker.supervision.worker_link import WorkerLink

log = logging.getLogger(__name__)


class ExecutorTeardown:
    """Of one executor that was started."""

    def __init__(
        self,
        state: ExecutorState,
        process: ExecutorProcess,
        up: WorkerLink,
        loop: AbstractEventLoop,
        *,
        ending: Termination,
        captured: OutputPipes,
        leftovers: DescendantCleanup,
    ) -> None:
        self._state, self._process, self._up, self._loop = state, process, up, loop
        self._ending, self._captured, self._leftovers = ending, captured, leftovers

    def run(self, death: ExitStatus, *, is_stuck: bool = False) -> None:
        """Report how each of its attempts ended, then clear up and report that it is gone."""
        state, line = self._state, self._state.attempts
        self._captured.close()
        figures = self._process.read_page()
        words = messages.stderr_tail(line.last_started(figures), self._captured.stderr_tail)
        settlement = assign_blame(
            line,
            figures,
            was_loading=not state.is_loaded,
            ladders=self._ending.ladders,
            cause=self._ending.cause,
            exit_status=death,
            stderr_tail=words,
        )
        state.is_dead = True
        run_s = time.monotonic() - figures.started_mono if state.is_loaded and figures.started else None
        waited_s = state.load_s or time.monotonic() - state.started_mono
        for end in settlement.ends:
            self._up.send_reliably(
                messages.encode_ended(
                    end, time.time(), run_s, waited_s if end.entry.waited_for_load else None
                )
            )
        line.not_started = settlement.not_started + line.not_started
        line.entries.clear()
        self._process.close()
        if is_stuck:
            self._on_clear(False, settlement)
        else:
            self._leftovers.kill_all(
                self._loop,
                is_alone=lambda: self._up.is_alone(state.number),
                on_done=lambda is_clear: self._on_clear(is_clear, settlement),
            )

    def _on_clear(self, is_clear: bool, settlement: CrashReport) -> None:
        state, up = self._state, self._up
        if is_clear:
            _report_gone(state, up, settlement.code, settlement.message, settlement.detail)
            return
        log.error("executor %s does not die of SIGKILL; it is written off", state.marker)
        _report_gone(state, up, STUCK, "a process of the executor does not die of SIGKILL")
        cleared = worker_protocol.encode(ExecutorGone(state.number, "cleared", "what did not die is gone"))
        self._leftovers.sweep_until_gone(self._loop, lambda: up.send_reliably(cleared))


def report_unstarted(state: ExecutorState, up: WorkerLink, message: str) -> None:
    """Report that the process could not be started, which its first attempt is blamed for."""
    line = state.attempts
    for entry in line.entries[:1]:
        up.send_reliably(messages.encode_ended(AttemptEnd(entry, "worker_crashed", message), time.time()))
    line.not_started += [entry.key for entry in line.entries[1:]]
    state.is_dead = True
    _report_gone(state, up, "worker_crashed", message)


def _report_gone(state: ExecutorState, up: WorkerLink, code: str, message: str, detail: Any = None) -> None:
    up.send_reliably(
        worker_protocol.encode(ExecutorGone(state.number, code, message, state.attempts.not_started, detail))
    )
    up.on_executor_gone(state.number)
