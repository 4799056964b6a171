"""Effect: answers the calls that handlers make while they run: where a saved file lies."""

from __future__ import annotations

from typing import Any

from runner.coordinator.lifecycle.job_reader import JobReader
from runner.coordinator.processes.worker_pool import WorkerHandle, WorkerPool
from runner.coordinator.runtime.background_tasks import BackgroundTasks
from runner.protocol.worker import AttemptReply, AttemptRequest, encode


class HandlerCalls:
    """Finding a file goes to the disk, so each call is answered in a task of its own."""

    def __init__(self, *, archive: JobReader, fleet: WorkerPool) -> None:
        self._archive = archive
        self._fleet = fleet
        self._tasks = BackgroundTasks()

    def on_call(self, worker: WorkerHandle, call: AttemptRequest) -> None:
        """Start to answer a call."""
        self._tasks.start(self._answer(worker, call))

    async def _answer(self, worker: WorkerHandle, call: AttemptRequest) -> None:
        if call.op != "file" or not isinstance(call.argument, str):
            self._send(worker, call, None, ("not_found", f"there is no call {call.op!r}"))
            return
        try:
            path = await self._archive.find_file(call.argument)
        except OSError as error:
            # Without an answer the handler would wait to its timeout.
            self._send(worker, call, None, ("unavailable", f"files can't be read: {error}"))
            return
        missing = None if path is not None else ("not_found", f"there is no file {call.argument}")
        self._send(worker, call, None if path is None else str(path), missing)

    def _send(
        self, worker: WorkerHandle, call: AttemptRequest, result: Any, error: tuple[str, str] | None
    ) -> None:
        self._fleet.post(worker, encode(AttemptReply(call.request_id, call.executor, result, error)))
        self._fleet.flush()
