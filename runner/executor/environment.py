"""Effect: state shared by all attempts of an executor: configuration, page, sender, pending requests."""

from __future__ import annotations

import threading
from typing import Any

from runner.executor.cancel_signal import CancelSignal
from runner.executor.sender import Sender
from runner.executor.shared_page import SharedPage
from runner.executor.torch_memory import TorchMemory
from runner.protocol import worker as worker_protocol

#: Longest wait for the coordinator's reply to a request.
REPLY_TIMEOUT_S = 30.0


class ExecutorEnvironment:
    """Shared state of an executor, created when its configuration arrives.

    The channel thread changes `config.grant_bytes` and `config.cap_bytes` when the grant changes.
    """

    def __init__(
        self,
        config: worker_protocol.ConfigureExecutor,
        page: SharedPage,
        sender: Sender,
        cancel_signal: CancelSignal,
    ) -> None:
        self.config = config
        self.page = page
        self.sender = sender
        #: None unless the executor runs on a GPU.
        self.torch_memory = TorchMemory(config) if config.device.startswith("cuda") else None
        self.cancel_signal = cancel_signal
        #: Held while pending progress is taken and queued; nothing done under it blocks.
        self.progress_lock = threading.Lock()
        self._pending: dict[int, _PendingRequest] = {}
        self._last_request_id = 0
        self._lock = threading.Lock()

    def request(self, job_id: str, attempt: int, op: str, argument: Any) -> Any:
        """Send a request of an attempt to the coordinator and return the result in its reply.

        `op` names the operation ("file"); `argument` is its value, encoded as MessagePack.

        Raises:
            LookupError: the coordinator refuses; (code, message).
            TimeoutError: no reply within 30 s.
        """
        pending = _PendingRequest()
        with self._lock:
            self._last_request_id += 1
            request_id = self._last_request_id
            self._pending[request_id] = pending
        try:
            message = worker_protocol.AttemptRequest(
                request_id, self.config.executor, job_id, attempt, op, argument
            )
            self.sender.send_message(worker_protocol.encode(message))
            # A signal handler that raises interrupts the wait for a lock, so a cancel gets through.
            if not pending.replied.acquire(timeout=REPLY_TIMEOUT_S):
                raise TimeoutError(f"the coordinator did not answer {op!r} within {REPLY_TIMEOUT_S:.0f} s")
        finally:
            self._pending.pop(request_id, None)
        reply = pending.reply
        assert reply is not None
        if reply.error is not None:
            raise LookupError(*reply.error)
        return reply.result

    def on_reply(self, reply: worker_protocol.AttemptReply) -> None:
        """Deliver a reply to its waiting thread, if that still waits; called by the channel thread."""
        pending = self._pending.get(reply.request_id)
        if pending is not None:
            pending.reply = reply
            pending.replied.release()


class _PendingRequest:
    """A request without a reply; the semaphore is released when `reply` is set."""

    __slots__ = ("replied", "reply")

    def __init__(self) -> None:
        self.replied = threading.Semaphore(0)
        self.reply: worker_protocol.AttemptReply | None = None
