"""Effect: the client for programs with an event loop; same operations and methods as `sync_client`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar, Unpack, overload
from urllib.parse import quote

import httpcore2

from runner.client import downloads, executors, network, operations
from runner.client import http as client_http
from runner.client.downloads import OnBytes
from runner.client.events import EventFollower, JobEvent, ProgressEvent
from runner.client.handler_types import (
    AsyncHandlerClass,
    AsyncHandlerFunction,
    HandlerClass,
    handler_name,
    output_reader,
)
from runner.client.http_call import HttpCall, HttpResponse, Operation, Pause
from runner.client.models import Job
from runner.client.operations import JobOptions
from runner.errors import NoServer, RunnerError
from runner.formats.units import parse_seconds

T = TypeVar("T")
log = logging.getLogger("runner.client")


class AsyncJobHandle(Generic[T]):
    """A submitted job; T is the type that its handler returns.

    Creating a handle sends nothing. Dropping it does not cancel the job.
    """

    def __init__(
        self,
        client: AsyncClient,
        job_id: str,
        read: Callable[[Any], Any] | None = None,
        warnings: Sequence[str] = (),
    ) -> None:
        self.id = job_id
        #: What the server warned of when the job was submitted, such as fields that the handler ignores.
        self.warnings = list(warnings)
        self._client = client
        self._read_output = read
        self._listeners: list[Callable[[ProgressEvent], object]] = []
        self._progress_task: asyncio.Task[None] | None = None

    async def result(self, timeout: float | str | None = None) -> T:
        """Return the output once the job has ended.

        Args:
            timeout: longest wait, seconds or text such as "5m"; None waits without a limit.

        Raises:
            JobFailed: the job failed; `error` is the job's.
            JobCancelled: the job was cancelled; `error` has the reason.
            TimeoutError: the time is over; the job continues.
            NoServer: the server is not reachable, or was not for 30 s.
        """
        output = await self._client._perform(operations.result(self.id, **self._client._time_bounds(timeout)))
        if self._progress_task is not None:
            # The last progress came before the end: deliver it before the caller continues.
            await asyncio.wait({self._progress_task}, timeout=2.0)
        value: T = self._read_output(output) if self._read_output is not None else output
        return value

    async def wait(self, timeout: float | str | None = None) -> Job:
        """Return the job once it has ended in any state; raises TimeoutError and NoServer as `result`."""
        return await self._client.wait(self.id, timeout)

    async def status(self) -> Job:
        """Return the job as it is now."""
        return await self._client.get(self.id)

    def events(
        self, after: int | Literal["now"] | None = None, types: Sequence[str] = ()
    ) -> AsyncIterator[JobEvent]:
        """Yield the job's events as they come, to the end of the job.

        Args:
            after: sequence number after which to start; None starts with the first event, "now" leaves out
                the events so far.
            types: only these event types, such as ("progress", "log"); empty for all.
        """
        return self._client.events(self.id, after, types)

    def on_progress(self, fn: Callable[[ProgressEvent], object]) -> Callable[[], None]:
        """Call `fn` with every progress event, in a task of its own; return a function that removes it.

        Exceptions of `fn` are logged. All callbacks of a handle share one stream.
        """
        self._listeners.append(fn)
        if self._progress_task is None:
            self._progress_task = asyncio.create_task(self._follow_progress(), name=f"progress-{self.id}")

        def remove() -> None:
            if fn in self._listeners:
                self._listeners.remove(fn)
            if not self._listeners and self._progress_task is not None:
                self._progress_task.cancel()
                self._progress_task = None

        return remove

    async def cancel(self, reason: str | None = None, *, force: bool = False) -> Job:
        """Request a cancel; a running job takes a moment to stop, with `force` its process is killed.

        Raises AlreadyFinished.
        """
        return await self._client.cancel(self.id, reason, force=force)

    async def retry(self) -> Job:
        """Queue the ended job again, under the same id."""
        return await self._client.retry(self.id)

    async def explain(self) -> dict[str, Any]:
        """Return why the job waits, with the bytes per device that decided it."""
        return await self._client.explain(self.id)

    async def file(self, name: str) -> bytes:
        """Return the bytes of a file that the job saved; raises NotFound."""
        return await self._client.file(self.id, name)

    async def files(self) -> list[dict[str, Any]]:
        """Return a reference to every file that the job has saved: name, size in bytes, content type, ..."""
        return await self._client.files(self.id)

    async def download(self, folder: str | Path = ".", *, on_bytes: OnBytes | None = None) -> list[Path]:
        """Write all files of the job to a folder; return their paths. See `AsyncClient.download`."""
        return await self._client.download(self.id, folder, on_bytes=on_bytes)

    def __repr__(self) -> str:
        """Return a text with the id, so that handles can be distinguished."""
        return f"<AsyncJobHandle {self.id}>"

    async def _follow_progress(self) -> None:
        try:
            async for event in self.events(types=("progress", "done")):
                if isinstance(event, ProgressEvent):
                    for fn in list(self._listeners):
                        client_http.call_listener(fn, event, log)
        except RunnerError as error:
            log.warning("stopped following the progress of job %s: %s", self.id, error)
        except RuntimeError:
            # Closing the client ends the stream as well: not an error.
            log.debug("stopped following the progress of job %s: client closed", self.id)
        self._progress_task = None


class AsyncClient:
    """A client of one server; usable as a context manager, which closes its connections.

    `url` defaults to RUNNER_URL or http://127.0.0.1:8484, `token` to RUNNER_TOKEN. `unix://PATH` is the Unix
    socket of a server. Every method raises `NoServer` if the server is not reachable, `Unauthorized` without
    the right token, and otherwise the `RunnerError` of the server's answer. Once the server has answered,
    waits and streams reconnect for up to 30 s if it restarts.
    """

    def __init__(self, url: str | None = None, token: str | None = None) -> None:
        self.url = client_http.server_url(url)
        self._endpoint = client_http.find_endpoint(self.url, token)
        self._pool = network.open_async_pool(client_http.pool_options(self.url))
        self._kept = network.AsyncKeptConnections(self._pool, self._endpoint.origin)
        self._is_closed = False
        #: The server has answered once: from then on a short outage is bridged by retries.
        self._has_answered = False

    async def aclose(self) -> None:
        """Close the connections."""
        self._is_closed = True
        await self._kept.aclose()
        await self._pool.aclose()

    async def __aenter__(self) -> Self:
        """Return the client itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self.aclose()

    @overload
    async def submit(
        self, handler: str, input: object = ..., **options: Unpack[JobOptions]
    ) -> AsyncJobHandle[Any]: ...
    @overload
    async def submit(
        self, handler: AsyncHandlerClass[T], input: object = ..., **options: Unpack[JobOptions]
    ) -> AsyncJobHandle[T]: ...
    @overload
    async def submit(
        self, handler: type[HandlerClass[T]], input: object = ..., **options: Unpack[JobOptions]
    ) -> AsyncJobHandle[T]: ...
    @overload
    async def submit(
        self, handler: AsyncHandlerFunction[T], input: object = ..., **options: Unpack[JobOptions]
    ) -> AsyncJobHandle[T]: ...
    @overload
    async def submit(
        self, handler: Callable[..., T], input: object = ..., **options: Unpack[JobOptions]
    ) -> AsyncJobHandle[T]: ...
    async def submit(
        self, handler: Any, input: object = None, **options: Unpack[JobOptions]
    ) -> AsyncJobHandle[Any]:
        """Submit one job; it is durable on return.

        Args:
            handler: the handler's name, or its decorated class or function (which types the result).
            input: a JSON value or pydantic model.
            options: see `JobOptions`; options left out are the handler's.

        Raises:
            UnknownHandler: no handler has this name.
            ValidationFailed: the input or an option is invalid; `detail["errors"]` has JSON pointers.
            QueueFull: the server's limit on queued jobs is reached.
            TypeError, ValueError: an unknown or unreadable option, or an input that is not JSON.
        """
        body = operations.submit_body(handler_name(handler), input, options, now=time.time())
        job = await self._perform(operations.submit(body))
        return AsyncJobHandle(self, job.id, output_reader(handler), job.warnings)

    async def submit_many(
        self, handler: Any, inputs: Iterable[object], **options: Unpack[JobOptions]
    ) -> list[AsyncJobHandle[Any]]:
        """Submit one job per input, in requests of up to 10,000 jobs; return handles in the same order.

        Raises:
            RunnerError: error of the first refused job; `detail` has its `index` and the `accepted_ids`.
        """
        name, read = handler_name(handler), output_reader(handler)
        now = time.time()
        bodies = [operations.submit_body(name, entry, options, now=now) for entry in inputs]
        ids = await self._perform(operations.submit_many(bodies))
        return [AsyncJobHandle(self, job_id, read) for job_id in ids]

    async def map(
        self,
        handler: Any,
        inputs: Iterable[object],
        *,
        result_timeout: float | str | None = None,
        **options: Unpack[JobOptions],
    ) -> list[Any]:
        """Submit one job per input and return the outputs, in the order of the inputs.

        `result_timeout` bounds the wait for all of them together. Raises the error of the first job, in
        order, that did not succeed; the others continue.
        """
        ids = [handle.id for handle in await self.submit_many(handler, inputs, **options)]
        read = output_reader(handler)
        outputs = await self._perform(
            operations.results(ids, **self._time_bounds(result_timeout, known=False))
        )
        return [read(output) for output in outputs] if read is not None else outputs

    async def run(
        self,
        handler: Any,
        input: object = None,
        *,
        result_timeout: float | str | None = None,
        **options: Unpack[JobOptions],
    ) -> Any:
        """Submit one job and return its output, in one round trip if the job is short.

        Raises as `submit` and `JobHandle.result`; `result_timeout` does not include the submit.
        """
        body = operations.submit_body(handler_name(handler), input, options, now=time.time())
        output = await self._perform(operations.run(body, **self._time_bounds(result_timeout, known=False)))
        read = output_reader(handler)
        return read(output) if read is not None else output

    def job(self, job_id: str) -> AsyncJobHandle[Any]:
        """Return a handle of a job whose id is known; sends nothing."""
        return AsyncJobHandle(self, job_id)

    async def get(self, job_id: str) -> Job:
        """Return the job as it is now; raises NotFound."""
        return await self._perform(operations.get(job_id))

    async def wait(self, job_id: str, timeout: float | str | None = None) -> Job:
        """Return the job once it has ended in any state.

        Raises TimeoutError after `timeout` (seconds or "5m"); the job continues.
        """
        bound = self._time_bounds(timeout)
        limit_s = bound.pop("timeout_s")
        until = None if limit_s is None else time.monotonic() + limit_s
        return await self._perform(operations.wait(job_id, until=until, **bound))

    async def events(
        self, job_id: str, after: int | Literal["now"] | None = None, types: Sequence[str] = ()
    ) -> AsyncIterator[JobEvent]:
        """Yield the job's events as they come, each exactly once, even across reconnects and server restarts.

        `after` and `types` as for `AsyncJobHandle.events`. Raises NoServer once the server was gone for 30 s.
        """
        follower = EventFollower(job_id, after=after, types=tuple(types), known=self._has_answered)
        while not follower.is_over:
            try:
                async with self._pool.stream(**self._request_options(follower.open_call())) as response:
                    self._has_answered = True
                    if follower.on_opened(response.status):
                        async for chunk in response.aiter_stream():
                            for event in follower.feed(chunk):
                                yield event
                        pause_s = follower.on_closed()
                    elif not follower.is_over:
                        await response.aread()
                        pause_s = follower.on_refused(client_http.read_response(response), time.monotonic())
            except client_http.TRANSPORT_ERRORS as error:
                pause_s = follower.on_failed(client_http.connection_error(error, self.url), time.monotonic())
            if not follower.is_over:
                await asyncio.sleep(pause_s)

    async def cancel(self, job_id: str, reason: str | None = None, *, force: bool = False) -> Job:
        """Request a cancel; a running job takes a moment to stop, with `force` its process is killed.

        Raises AlreadyFinished, NotFound.
        """
        return await self._perform(operations.cancel(job_id, reason, force=force))

    async def retry(self, job_id: str) -> Job:
        """Queue an ended job again, under the same id.

        Raises Conflict if it has not ended, NotFound.
        """
        return await self._perform(operations.retry(job_id))

    async def delete(self, job_id: str) -> None:
        """Delete a job that is not running, with its events and files.

        Raises Conflict while it runs, NotFound.
        """
        await self._perform(operations.delete(job_id))

    async def jobs(self, *, limit: int | None = 100, **filters: Any) -> list[Job]:
        """Return matching jobs, newest first.

        Filters have the names of GET /v1/jobs: `state`, `reason`, `handler`, `queue`, `tenant`, `tag`,
        `created_after`, ... A list means any of its values. `limit` None fetches all pages.
        """
        return await self._perform(operations.list_jobs(filters, limit=limit))

    async def explain(self, job_id: str) -> dict[str, Any]:
        """Return why a job waits, with the figures."""
        return await self._perform(operations.get_job_document(job_id, "explain"))

    async def attempts(self, job_id: str) -> list[dict[str, Any]]:
        """Return all attempts of the job: worker, devices, times, peak memory, error."""
        return await self._perform(operations.get_job_document(job_id, "attempts"))

    async def file(self, job_id: str, name: str) -> bytes:
        """Return the bytes of a file that the job saved; raises NotFound."""
        return await self._perform(operations.get_file(job_id, name))

    async def files(self, job_id: str) -> list[dict[str, Any]]:
        """Return a reference to every file that the job has saved: name, size in bytes, content type, ..."""
        return await self._perform(operations.get_job_document(job_id, "files"))

    async def download(
        self, job_id: str, folder: str | Path = ".", *, on_bytes: OnBytes | None = None
    ) -> list[Path]:
        """Write all files that the job has saved to a folder; return their paths, in the order of `files`.

        Names lose what could lead out of the folder. No file is replaced: `a.png` becomes `a-2.png` if there
        is one. `on_bytes` is called with the reference and the bytes of it that have arrived.

        Raises:
            NotFound: there is no such job.
            RunnerError: a file arrived changed, or the connection was lost.
            OSError: the folder can't be written.
        """
        paths = []
        for reference in await self.files(job_id):
            call = self._request_options(downloads.download_call(job_id, str(reference["name"])))
            with downloads.Download(reference, Path(folder), on_bytes) as download:
                try:
                    async with self._pool.stream(**call) as response:
                        if response.status >= 400:
                            await response.aread()
                            downloads.check_status(client_http.read_response(response))
                        async for chunk in response.aiter_stream():
                            download.write(chunk)
                except client_http.TRANSPORT_ERRORS as error:
                    raise client_http.connection_error(error, self.url) from error
                paths.append(download.finish())
        return paths

    async def queues(self) -> list[dict[str, Any]]:
        """Return every queue with its counts by state."""
        return await self._list("queues")

    async def devices(self) -> list[dict[str, Any]]:
        """Return every device with its memory in bytes and its executors."""
        return await self._list("devices")

    async def workers(self) -> list[dict[str, Any]]:
        """Return every worker process."""
        return await self._list("workers")

    async def handlers(self) -> list[dict[str, Any]]:
        """Return every handler with its schemas and options; broken ones have their error."""
        return await self._list("handlers")

    async def importing(self) -> list[str]:
        """Return the sources of handlers that the server still imports; more handlers may come from them."""
        return await self._perform(operations.importing_sources())

    async def handler(self, name: str) -> dict[str, Any]:
        """Return one handler: options, executors, learned figures. Raises UnknownHandler."""
        return await self._perform(operations.get_document(f"handlers/{quote(name, safe='')}"))

    async def load(
        self,
        handler: str,
        model: str | None = None,
        device: str | None = None,
        timeout: float | str | None = None,
    ) -> dict[str, Any]:
        """Load an executor of the handler without a job; return where it is loaded.

        Args:
            model: for a handler with `model_by`.
            device: id of the only allowed device; None: any.
            timeout: longest wait, seconds or "5m"; the load continues after it.

        Raises:
            NotLoaded: the load failed; `detail["error"]` is the error that a job would get.
            TimeoutError: the time is over.
        """
        until = None if timeout is None else time.monotonic() + parse_seconds(timeout)
        return await self._perform(executors.load(handler, model, device, until=until, clock=time.monotonic))

    async def unload(
        self, handler: str, model: str | None = None, device: str | None = None
    ) -> dict[str, Any]:
        """Unload the handler's executors and return them; busy ones first finish their attempts."""
        return await self._perform(executors.unload(handler, model, device))

    async def reload_handlers(self) -> dict[str, Any]:
        """Find and describe the handlers again; return the names by what has changed.

        Raises ReloadRefused if the sources are invalid; the old handlers then stay active.
        """
        return await self._perform(operations.reload_handlers())

    async def stats(self) -> dict[str, Any]:
        """Return throughput, waiting and run times, and failures by code."""
        return await self._perform(operations.get_document("stats"))

    async def ready(self) -> dict[str, Any]:
        """Return the document of /readyz, whether the server is ready or not."""
        return await self._perform(operations.get_readiness())

    async def pause(self, queue: str, *, create: bool = False) -> dict[str, Any]:
        """Stop starting jobs of this queue; running ones continue.

        `create` also pauses a queue that does not exist yet; without it such a queue raises NotFound.
        """
        if create:
            return await self._perform(operations.put_queue(queue, paused=True))
        return await self._perform(operations.set_queue(queue, "pause"))

    async def resume(self, queue: str) -> dict[str, Any]:
        """Start jobs of this queue again."""
        return await self._perform(operations.set_queue(queue, "resume"))

    async def drain_device(self, device: str) -> dict[str, Any]:
        """Stop starting jobs on this device (id or uuid) and unload its idle executors."""
        return await self._perform(operations.drain_device(device, "drain"))

    async def resume_device(self, device: str) -> dict[str, Any]:
        """Start jobs on this device again."""
        return await self._perform(operations.drain_device(device, "resume"))

    async def set_device(self, device: str, *, max_executors: int | None) -> dict[str, Any]:
        """Set how many executors the device runs concurrently; None: as configured in the server."""
        return await self._perform(operations.set_device(device, max_executors))

    async def _list(self, path: str) -> list[dict[str, Any]]:
        return await self._perform(operations.get_document(path))

    def _time_bounds(self, timeout: float | str | None, *, known: bool = True) -> dict[str, Any]:
        limit_s = None if timeout is None else parse_seconds(timeout)
        bound: dict[str, Any] = {"timeout_s": limit_s, "clock": time.monotonic}
        return bound | {"known": self._has_answered} if known else bound

    async def _perform(self, operation: Operation[T]) -> T:
        answer: HttpResponse | None = None
        failure: NoServer | None = None
        while True:
            try:
                step = operation.throw(failure) if failure is not None else operation.send(answer)
            except StopIteration as stop:
                value: T = stop.value
                return value
            answer, failure = None, None
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
                continue
            try:
                answer = await self._send(step)
            except NoServer as error:
                failure = error

    def _request_options(self, call: HttpCall) -> dict[str, Any]:
        """Return the arguments of the pool for a call; raise RuntimeError once the client is closed."""
        if self._is_closed:
            raise RuntimeError("the client is closed")
        return self._endpoint.request_options(call)

    async def _send(self, call: HttpCall) -> HttpResponse:
        try:
            answer = client_http.read_response(
                await self._kept.send(httpcore2.Request(**self._request_options(call)))
            )
        except client_http.TRANSPORT_ERRORS as error:
            raise client_http.connection_error(error, self.url, call) from error
        self._has_answered = True
        return answer
