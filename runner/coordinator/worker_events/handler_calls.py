"""Effect: answers requests of running handlers: the path of a saved file."""

from __future__ import annotations

from typing import Any

from runner.coordinator.processes.worker_pool import WorkerHandle, WorkerPool
from runner.coordinator.runtime.background_tasks import BackgroundTasks
from runner.coordinator.storage.files import FileStore
from runner.protocol.worker import AttemptReply, AttemptRequest, encode


class AttemptRequestHandler:
    """Answers each request in a task of its own, because looking up a file needs the disk.

    A request may be repeated after a reconnect and is then answered again; the executor ignores the second
    reply.
    """

    def __init__(self, *, files: FileStore, worker_pool: WorkerPool) -> None:
        self._files = files
        self._worker_pool = worker_pool
        self._tasks = BackgroundTasks()

    def on_request(self, worker: WorkerHandle, request: AttemptRequest) -> None:
        """Start a task that answers a request."""
        self._tasks.start(self._answer(worker, request))

    async def _answer(self, worker: WorkerHandle, request: AttemptRequest) -> None:
        """Reply with a path, or with an error: `not_found`, or `unavailable` if the disk can't be read."""
        if request.op != "file" or not isinstance(request.argument, str):
            self._send_reply(worker, request, None, ("not_found", f"there is no request {request.op!r}"))
            return
        try:
            path = await self._files.find(request.argument)
        except OSError as error:
            # Without an answer the handler would wait until its timeout.
            self._send_reply(worker, request, None, ("unavailable", f"files can't be read: {error}"))
            return
        failure = None if path is not None else ("not_found", f"there is no file {request.argument}")
        self._send_reply(worker, request, None if path is None else str(path), failure)

    def _send_reply(
        self, worker: WorkerHandle, request: AttemptRequest, result: Any, error: tuple[str, str] | None
    ) -> None:
        self._worker_pool.post(
            worker, encode(AttemptReply(request.request_id, request.executor, result, error))
        )
        self._worker_pool.flush()
