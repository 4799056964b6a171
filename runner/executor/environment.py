"""Effect: what all attempts of one executor share: its configuration, page, outbox and questions upward."""

from __future__ import annotations

import threading
from typing import Any

from runner.executor.cancel_signal import CancelSignal
from runner.executor.sender import Sender
from runner.executor.shared_page import SharedPage
from runner.executor.torch_memory import TorchMemory
from runner.protocol import worker as worker_protocol

#: Longest wait for the coordinator's answer to a question.
ANSWER_S = 30.0


class Site:
    """Set up once the executor knows what it is."""

    def __init__(
        self,
        config: worker_protocol.ConfigureExecutor,
        page: SharedPage,
        outbox: Sender,
        shield: CancelSignal,
    ) -> None:
        self.config = config
        self.page = page
        self.outbox = outbox
        #: On a GPU alone.
        self.memory = TorchMemory(config) if config.device.startswith("cuda") else None
        self.shield = shield
        #: Held while a held-back progress is taken and queued; nothing in it blocks.
        self.flushing = threading.Lock()
        self._calls: dict[int, _Question] = {}
        self._last_call = 0
        self._lock = threading.Lock()

    def ask(self, job_id: str, attempt: int, op: str, argument: Any) -> Any:
        """The coordinator's answer.

        Raises:
            LookupError: it refuses; (code, message).
            TimeoutError: no answer within 30 s.
        """
        question = _Question()
        with self._lock:
            self._last_call += 1
            number = self._last_call
            self._calls[number] = question
        try:
            call = worker_protocol.AttemptRequest(number, self.config.executor, job_id, attempt, op, argument)
            self.outbox.send_message(worker_protocol.encode(call))
            # A lock's wait is cut short by a signal handler that raises, so a cancel gets through.
            if not question.gate.acquire(timeout=ANSWER_S):
                raise TimeoutError(f"the coordinator did not answer {op!r} within {ANSWER_S:.0f} s")
        finally:
            self._calls.pop(number, None)
        answer = question.answer
        assert answer is not None
        if answer.error is not None:
            raise LookupError(*answer.error)
        return answer.result

    def answer(self, answer: worker_protocol.AttemptReply) -> None:
        """Called by the channel thread."""
        question = self._calls.get(answer.request_id)
        if question is not None:
            question.answer = answer
            question.gate.release()


class _Question:
    __slots__ = ("answer", "gate")

    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)
        self.answer: worker_protocol.AttemptReply | None = None
