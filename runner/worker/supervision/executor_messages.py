"""Effect: handles the messages of an executor and forwards to the coordinator what it needs.

Events and ends of attempts are forwarded without decoding their bodies, unless the worker has to change them;
all other messages are for the worker.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from itertools import groupby

from runner.protocol import framing
from runner.protocol import worker as worker_protocol
from runner.protocol.worker import (
    AttemptsRecalled,
    ExecutorLoaded,
    LoadFailed,
    OutputMark,
    RunAttempts,
    SimulatedAllocation,
)
from runner.worker.processes import process_tree
from runner.worker.processes.executor_process import ExecutorProcess
from runner.worker.supervision import messages
from runner.worker.supervision.attempts import AssignedAttempt
from runner.worker.supervision.crash_report import EndCause, ReportedEnd
from runner.worker.supervision.deadline_monitor import START_REPORT_S, DeadlineMonitor
from runner.worker.supervision.executor_state import ExecutorState
from runner.worker.supervision.output_pipes import OutputPipes
from runner.worker.supervision.recalls import Recalls
from runner.worker.supervision.termination import Termination
from runner.worker.supervision.worker_link import WorkerLink

log = logging.getLogger(__name__)

#: Longest time, in seconds, for an executor to exit after its load failed.
LOAD_FAILED_EXIT_S = 2.0
#: Tags of `AttemptEvents` and `AttemptEnded`.
_EVENTS_TAG, _ENDED_TAG = 23, 24


class ExecutorMessages:
    """Handles the messages of one executor; during a shutdown, `unload` is called once no attempt is left."""

    def __init__(
        self,
        state: ExecutorState,
        process: ExecutorProcess,
        link: WorkerLink,
        *,
        recalls: Recalls,
        termination: Termination,
        deadline_monitor: DeadlineMonitor,
        output_pipes: OutputPipes,
        device_kind: str,
        unload: Callable[[], None],
    ) -> None:
        self._state, self._process, self._link = state, process, link
        self._attempts = state.attempts
        self._recalls, self._termination, self._deadline_monitor, self._output_pipes = (
            recalls,
            termination,
            deadline_monitor,
            output_pipes,
        )
        self._device_kind, self._unload = device_kind, unload

    def receive(self, *, from_page: bool = False) -> tuple[bool, bool]:
        """Handle received messages (`from_page`: those that a dead executor had not sent).

        Returns:
            Whether anything was received, and whether the other end is closed.
        """
        try:
            frames, is_closed = self._process.read_held_frames() if from_page else self._process.receive()
            for frame in frames:
                for message in framing.unpack(frame):
                    self._handle(message)
        except worker_protocol.UNDECODABLE as error:
            log.error("executor %s sent an invalid message: %s", self._state.marker, error)
            self._process.set_reading(False)
            if not from_page and not self._state.is_dead:
                cause = EndCause(
                    "worker_crashed", f"the executor sent an invalid message: {error}", counts_as_crash=True
                )
                self._termination.kill(cause)
            return False, False
        return bool(frames), is_closed

    def _handle(self, message: bytes) -> None:
        """Forward a message about an assigned attempt, drop one about any other, and handle the rest here."""
        tag = worker_protocol.tag_of(message)
        if tag not in (_EVENTS_TAG, _ENDED_TAG):
            self._handle_control(message, worker_protocol.from_executor_decoder.decode(message))
            return
        envelope = messages.envelope_decoder.decode(message)
        entry = self._attempts.find((envelope.job_id, envelope.attempt))
        if entry is None:
            log.debug("executor %s reported an attempt twice, or one not assigned to it", self._state.marker)
        elif tag == _EVENTS_TAG:
            entry.event_messages.append(message)
            self._link.send_reliably(messages.renumber_events(entry, message, envelope.seq))
        else:
            self._on_ended(entry, message)

    def _handle_control(self, encoded: bytes, message: worker_protocol.FromExecutor) -> None:
        match message:
            case worker_protocol.SlotStarted():
                entry = self._attempts.find((message.job_id, message.attempt))
                if entry is not None:
                    entry.started_mono, entry.slot_index = message.at_mono, message.slot_index
                    self._link.wake_at(message.at_mono + START_REPORT_S)
            case OutputMark():
                entry = self._attempts.find((message.job_id, message.attempt))
                if entry is not None:
                    self._output_pipes.expect_markers(entry, message)
            case ExecutorLoaded():
                self._on_loaded(message)
            case LoadFailed():
                cause = EndCause(message.code, message.message, message.detail)
                self._termination.expect_exit(cause, LOAD_FAILED_EXIT_S)
            case AttemptsRecalled():
                self._on_recalled(message)
            case SimulatedAllocation():
                self._state.allocated_bytes = message.nbytes
                self._link.on_allocated(self._state.number)
            case worker_protocol.Leftovers():
                self._on_leftovers(message)
            case worker_protocol.AttemptRequest():
                self._link.forward_request(message, encoded)

    def _on_leftovers(self, message: worker_protocol.Leftovers) -> None:
        marker = self._state.marker
        if message.thread_lines:
            log.warning(
                "executor %s dropped %d lines of threads that earlier jobs have left at work",
                marker,
                message.thread_lines,
            )
        if message.are_children_left is not None:
            self._output_pipes.set_children_left(message.are_children_left)

    def _on_loaded(self, message: ExecutorLoaded) -> None:
        """Forward the report of a load, with the resident bytes if the worker can measure them.

        The first attempt, which may have waited for the load, starts now.
        """
        self._state.is_loaded = True
        self._state.load_s = message.load_s
        if self._device_kind == "sim":
            message.resident_bytes = self._state.allocated_bytes
        elif self._device_kind == "cpu":
            message.resident_bytes = process_tree.resident_bytes(self._process.pid)
        self._link.send_reliably(worker_protocol.encode(message))
        if self._attempts.entries:
            for entry in self._attempts.batch_of(self._attempts.entries[0]):
                self._deadline_monitor.report_start(entry, time.time())
        self._link.wake_at(time.monotonic() + START_REPORT_S)

    def _on_recalled(self, message: AttemptsRecalled) -> None:
        """Handle attempts that the executor has returned unstarted.

        Cancelled ones end. The others go back to the coordinator if it has recalled them or the executor is
        closing; if only a cancel caused the recall, they are sent to the executor again.
        """
        outcome = self._recalls.on_recalled(
            [(job, attempt) for job, attempt in message.attempts], self._attempts
        )
        for entry, command in outcome.cancelled:
            # The attempt was only removed from the queue: its executor continues.
            end = ReportedEnd(entry, command.code, command.message)
            self._link.send_reliably(
                messages.encode_ended(end, time.time(), executor_closing=not self._is_open)
            )
        for entry, command in outcome.started:
            self._deadline_monitor.end_attempt(entry, command)
        returned = outcome.returned
        if outcome.was_requested or not self._is_open or self._state.is_stopping:
            self._link.send_reliably(
                worker_protocol.encode(
                    AttemptsRecalled(self._state.number, [entry.key for entry in returned])
                )
            )
        elif returned:
            self._attempts.entries.extend(returned)
            for _, batch in groupby(returned, key=lambda entry: id(entry.batch) if entry.batch else 0):
                run = RunAttempts(self._state.number, [entry.attempt for entry in batch])
                self._process.send([worker_protocol.encode(run)])

    @property
    def _is_open(self) -> bool:
        """Return whether the executor may get attempts."""
        return not self._state.is_dead and not self._termination.is_closing

    def _on_ended(self, entry: AssignedAttempt, message: bytes) -> None:
        """Handle the end of an attempt; it is held until the output of its C code has been read."""
        now = time.monotonic()
        self._output_pipes.on_attempt_ended(entry, message, now)
        if self._attempts.entries:
            self._link.wake_at(now + START_REPORT_S)
        elif self._state.is_stopping:
            self._unload()
